//! TimesNet (Wu et al. 2023): windows folded at their strongest periods and convolved as images.

use tch::{Device, Kind, Tensor};

use super::attention::Embedding;
use crate::config::TimesNetConfig;
use crate::model::{Frame, Inputs, Model, Widths};
use crate::parameters::{LayerNorm, Linear, Parameters};

/// An embedding of each step, a linear map over time to input and horizon, and blocks of convolutions over folded windows.
///
/// The periods are the strongest of the whole batch, so a window's forecast depends on those beside it, as in NeuralForecast.
#[derive(Debug)]
pub struct TimesNet {
    parameters: Parameters,
    frame: Frame,
    embedding: Embedding,
    ahead: Linear,
    blocks: Vec<Block>,
    norm: LayerNorm,
    projection: Linear,
    periods: i64,
}

#[derive(Debug)]
struct Block {
    first: Inception,
    second: Inception,
}

/// The mean of convolutions with kernels of 1, 3, .., `2 reach + 1` rows and columns.
#[derive(Debug)]
struct Inception {
    weights: Vec<Tensor>,
    biases: Vec<Tensor>,
}

/// A convolution: weight `[outputs, inputs, size, size]` and bias.
struct Kernel {
    weight: Tensor,
    bias: Tensor,
}

/// A window of `steps` steps folded into rows of one period each.
///
/// ```text
///   period 4, steps 10:   0 1 2 3
///                         4 5 6 7
///                         8 9 . .     the rest is zero
/// ```
#[derive(Clone, Copy)]
struct Fold {
    period: i64,
    rows: i64,
}

impl TimesNet {
    /// Parameters are named as NeuralForecast's: `model.<i>.conv.0.kernels.<k>`, `enc_embedding`, `predict_linear`, ...
    pub fn new(config: &TimesNetConfig, widths: Widths, mut parameters: Parameters) -> Self {
        let p = &mut parameters;
        let (width, inner, kernels) = (config.hidden_size as i64, config.conv_hidden_size as i64, config.num_kernels as i64);
        let (input, h) = (config.input_size as i64, config.h as i64);
        let blocks = (0..config.encoder_layers).map(|block| Block {
            first: Inception::new(&format!("model.{block}.conv.0"), [width, inner], kernels, p),
            second: Inception::new(&format!("model.{block}.conv.2"), [inner, width], kernels, p),
        });
        let blocks = blocks.collect();
        Self {
            blocks,
            embedding: Embedding::new("enc_embedding", width, widths.futr as i64, Some(input), config.dropout, p),
            norm: p.layer_norm("layer_norm", width, 1e-5),
            ahead: p.linear("predict_linear", input, input + h),
            projection: p.linear("projection", width, widths.outputs as i64),
            frame: Frame::direct(config.input_size, config.h),
            periods: config.top_k as i64,
            parameters,
        }
    }
}

impl Inception {
    fn new(name: &str, [inputs, outputs]: [i64; 2], kernels: i64, parameters: &mut Parameters) -> Self {
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        for kernel in 0..kernels {
            let size = 2 * kernel + 1;
            // Kaiming's normal values for rectified outputs.
            let deviation = (2.0 / (outputs * size * size) as f64).sqrt();
            weights.push(parameters.normal(&format!("{name}.kernels.{kernel}.weight"), &[outputs, inputs, size, size], deviation));
            let zeros = Tensor::zeros([outputs], (Kind::Float, Device::Cpu));
            biases.push(parameters.learned(&format!("{name}.kernels.{kernel}.bias"), &zeros));
        }
        Self { weights, biases }
    }

    /// Convolution is linear, so the mean of convolutions is the convolution with the mean of their kernels, each centred in the largest:
    /// of 1 + 9 + .. + 121 products per value only 121 are left.
    fn kernel(&self) -> Kernel {
        let count = self.weights.len() as i64;
        let centred = |(kernel, weight): (usize, &Tensor)| {
            let border = count - 1 - kernel as i64;
            weight.constant_pad_nd([border; 4])
        };
        let sum = self.weights.iter().enumerate().map(centred).reduce(|sum, weight| sum + weight).expect("at least one kernel");
        let bias = Tensor::stack(&self.biases, 0).mean_dim(0, false, Kind::Float);
        Kernel { weight: sum / count as f64, bias }
    }
}

impl Kernel {
    /// Rows and columns on each side of the centre.
    fn reach(&self) -> i64 {
        self.weight.size()[2] / 2
    }

    /// Without the rows and columns that meet nothing but zeros beside an image of the given size.
    fn within(&self, fold: Fold) -> Kernel {
        let crop = |weight: Tensor, dim: i64, length: i64| {
            let (reach, needed) = (self.reach(), self.reach().min(length - 1));
            weight.narrow(dim, reach - needed, 2 * needed + 1)
        };
        let weight = crop(crop(self.weight.shallow_clone(), 2, fold.rows), 3, fold.period);
        Kernel { weight, bias: self.bias.shallow_clone() }
    }

    /// Rows on each side of the centre that a cropped kernel has.
    fn rows(&self) -> i64 {
        self.weight.size()[2] / 2
    }

    /// Images `[batch, channels, rows, period]`, with `padding` rows of zeros above and below.
    fn convolve(&self, image: &Tensor, padding: i64) -> Tensor {
        image.conv2d(&self.weight, Some(&self.bias), [1, 1], [padding, self.weight.size()[3] / 2], [1, 1], 1)
    }
}

impl Fold {
    fn new(period: i64, steps: i64) -> Self {
        Self { period, rows: (steps + period - 1) / period }
    }

    /// `[batch, steps, channels]` as an image whose row 0 is row `first` of the folded window (zero above it) and that ends
    /// `below` rows of zeros behind it, `[batch, channels, rows, period]`.
    fn image(self, x: &Tensor, first: i64, below: i64) -> Tensor {
        let size = x.size();
        let (front, back) = (-first * self.period, (self.rows + below) * self.period - size[1]);
        let x = if front == 0 && back == 0 { x.shallow_clone() } else { x.constant_pad_nd([0, 0, front, back]) };
        // The channels lie innermost already, which is how convolutions read them fastest.
        x.view([size[0], -1, self.period, size[2]]).permute([0, 3, 1, 2])
    }
}

/// `[batch, channels, rows, period] -> [batch, rows * period, channels]`.
fn unfold(image: &Tensor) -> Tensor {
    image.permute([0, 2, 3, 1]).flatten(1, 2)
}

impl Block {
    /// `[batch, steps, width]` to its steps from `from` on. Only rows that these can see are convolved.
    fn forward(&self, x: &Tensor, from: i64, periods: i64) -> Tensor {
        let steps = x.size()[1];
        let kernels = [self.first.kernel(), self.second.kernel()];
        let (periods, weights) = strongest(x, periods);
        let mut sum = x.slice(1, from, None, 1);
        for (period, weight) in periods.into_iter().zip(weights.unbind(1)) {
            let fold = Fold::new(period, steps);
            sum = sum.addcmul(&self.convolve(x, fold, from, &kernels), &weight.view([-1, 1, 1]));
        }
        sum
    }

    /// Both convolutions over the folded window, the steps from `from` on.
    fn convolve(&self, x: &Tensor, fold: Fold, from: i64, kernels: &[Kernel; 2]) -> Tensor {
        let [first, second] = [kernels[0].within(fold), kernels[1].within(fold)];
        let reach = first.rows();
        let wanted = from / fold.period; // the first row of the result
        let hidden = (wanted - reach).max(0); // the first row that the second convolution reads
        let inner = if hidden == 0 {
            first.convolve(&fold.image(x, 0, 0), reach)
        } else {
            first.convolve(&fold.image(x, hidden - reach, reach), 0)
        };
        let inner = inner.gelu("none");
        let (result, row) = if hidden == 0 {
            (second.convolve(&inner, reach), 0)
        } else {
            // The rows above are there, only those below are zero.
            (second.convolve(&inner.constant_pad_nd([0, 0, 0, reach]), 0), wanted)
        };
        unfold(&result).narrow(1, from - row * fold.period, x.size()[1] - from)
    }
}

/// The distinct periods of the `count` strongest frequencies of a batch `[batch, steps, width]`, and the weight of each period in
/// each window, `[batch, periods]`.
///
/// Shapes follow from the periods, so they are read back from the device here.
fn strongest(x: &Tensor, count: i64) -> (Vec<i64>, Tensor) {
    let amplitude = x.fft_rfft(None::<i64>, 1, "backward").abs().mean_dim(-1, false, Kind::Float); // [batch, frequencies]
    let constant = amplitude.detach().mean_dim(0, false, Kind::Float).slice(0, 1, None, 1);
    let (_, index) = constant.topk(count, 0, true, true);
    let index = index + 1;
    let weights = amplitude.index_select(1, &index).softmax(1, Kind::Float); // [batch, count]
    let frequencies: Vec<i64> = index.iter::<i64>().into_iter().flatten().collect();
    let mut periods: Vec<i64> = Vec::new();
    let mut columns: Vec<Tensor> = Vec::new();
    for (frequency, weight) in frequencies.iter().zip(weights.unbind(1)) {
        let period = x.size()[1] / frequency;
        // Near frequencies have the same whole period: their images are the same, and their weights add up.
        match periods.iter().position(|known| *known == period) {
            Some(known) => columns[known] = &columns[known] + weight,
            None => {
                periods.push(period);
                columns.push(weight);
            }
        }
    }
    (periods, Tensor::stack(&columns, 1))
}

impl Model for TimesNet {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn frame(&self) -> Frame {
        self.frame
    }

    fn forward(&self, inputs: &Inputs, train: bool) -> Tensor {
        let input = self.frame.input as i64;
        let futr = inputs.futr.as_ref().map(|futr| futr.narrow(1, 0, input));
        let x = self.embedding.forward(&inputs.y, futr.as_ref(), train); // [batch, input, width]
        let mut x = self.ahead.forward(&x.transpose(1, 2)).transpose(1, 2).contiguous(); // [batch, input + horizon, width]
        for (number, block) in self.blocks.iter().enumerate() {
            // Of the last block only the horizon is read.
            let from = if number + 1 == self.blocks.len() { input } else { 0 };
            x = self.norm.forward(&block.forward(&x, from, self.periods));
        }
        self.projection.forward(&x.slice(1, -(self.frame.horizon as i64), None, 1))
    }
}
