//! NHITS (Challu et al. 2023): blocks that see pooled lags, forecast a few knots each and interpolate them.

use tch::Tensor;

use super::block_mlp::BlockMlp;
use crate::config::{Interpolation, NHitsConfig, Pooling};
use crate::model::{Frame, Inputs, Model, Widths};
use crate::parameters::Parameters;

/// Stacks of blocks with backward and forward residual links.
///
/// ```text
///   residual ─► pool ─► MLP ─► backcast ──► residual' = (residual - backcast) * mask
///                          └─► knots ─► interpolation ─► added to the forecast, which starts at the last lag
/// ```
#[derive(Debug)]
pub struct NHits {
    parameters: Parameters,
    frame: Frame,
    blocks: Vec<Block>,
    config: NHitsConfig,
    outputs: i64,
}

#[derive(Debug)]
struct Block {
    pool: i64,
    mlp: BlockMlp,
}

impl NHits {
    /// Parameters are named `blocks.<i>.layers.<j>.weight` with PyTorch's positions of the linear layers.
    pub fn new(config: &NHitsConfig, widths: Widths, mut parameters: Parameters) -> Self {
        let (input, h, outputs) = (config.input_size, config.h, widths.outputs);
        let mut blocks = Vec::new();
        for (stack, &count) in config.n_blocks.iter().enumerate() {
            let pool = config.n_pool_kernel_size[stack];
            let past = input.div_ceil(pool) * (1 + widths.hist);
            let width = past + (input + h).div_ceil(pool) * widths.futr + widths.stat;
            let knots = (h / config.n_freq_downsample[stack]).max(1);
            for _ in 0..count {
                let (name, sizes) = (format!("blocks.{}.layers", blocks.len()), [width, input + outputs * knots]);
                let drops = config.dropout_prob_theta > 0.0;
                let mlp =
                    BlockMlp::new(&name, sizes, &config.mlp_units, config.activation, config.dropout_prob_theta, drops, &mut parameters);
                blocks.push(Block { pool: pool as i64, mlp });
            }
        }
        let frame = Frame::direct(input, h);
        Self { parameters, frame, blocks, config: config.clone(), outputs: outputs as i64 }
    }

    fn pool(&self, kernel: i64, x: &Tensor) -> Tensor {
        if kernel == 1 {
            return x.shallow_clone();
        }
        match self.config.pooling_mode {
            Pooling::MaxPool1d => x.max_pool1d([kernel], [kernel], [0], [1], true),
            Pooling::AvgPool1d => x.avg_pool1d([kernel], [kernel], [0], true, true),
        }
    }

    /// Exogenous inputs of a block: pooled over time and flattened, `[batch, width]`.
    fn exogenous(&self, kernel: i64, inputs: &Inputs) -> Vec<Tensor> {
        let flat = |x: &Tensor| {
            let pooled = self.pool(kernel, &x.transpose(1, 2)); // [batch, columns, time / kernel]
            pooled.transpose(1, 2).flatten(1, -1)
        };
        let temporal = [&inputs.hist, &inputs.futr].into_iter().flatten().map(flat);
        temporal.chain(inputs.stat.as_ref().map(Tensor::shallow_clone)).collect()
    }

    /// `[batch, outputs * knots] -> [batch, horizon, outputs]`.
    fn interpolate(&self, knots: &Tensor) -> Tensor {
        let h = self.frame.horizon as i64;
        let knots = knots.reshape([knots.size()[0], self.outputs, -1]); // [batch, outputs, knots]
        let path = match self.config.interpolation_mode {
            _ if knots.size()[2] == h => knots,
            Interpolation::Linear => knots.upsample_linear1d([h], false, None),
            Interpolation::Nearest => knots.upsample_nearest1d([h], None),
            Interpolation::Cubic => knots.unsqueeze(1).upsample_bicubic2d([1, h], false, None, None).squeeze_dim(1),
        };
        path.transpose(1, 2)
    }
}

impl Model for NHits {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn frame(&self) -> Frame {
        self.frame
    }

    fn forward(&self, inputs: &Inputs, train: bool) -> Tensor {
        let lags = inputs.y.squeeze_dim(-1); // [batch, input]
        let mask = inputs.mask.as_ref().map(|m| m.squeeze_dim(-1).flip([1]));
        let mut residual = lags.flip([1]);
        let mut forecast = lags.slice(1, -1, None, 1).unsqueeze(-1); // [batch, 1, 1]
        let input = self.frame.input as i64;
        for (number, block) in self.blocks.iter().enumerate() {
            let pooled = self.pool(block.pool, &residual.unsqueeze(1)).squeeze_dim(1);
            let mut parts = vec![pooled];
            parts.extend(self.exogenous(block.pool, inputs));
            let x = if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(&parts, 1) };
            let last = number + 1 == self.blocks.len();
            let (hidden, out) = (block.mlp.hidden(&x, train), block.mlp.out());
            // Nobody reads the backcast of the last block.
            let theta = if last { out.rows(input).forward(&hidden) } else { out.forward(&hidden) };
            let knots = if last { theta.shallow_clone() } else { theta.slice(1, input, None, 1) };
            forecast = self.interpolate(&knots) + forecast; // [batch, horizon, outputs]
            if !last {
                let rest = residual - theta.slice(1, None, input, 1);
                residual = mask.iter().fold(rest, |rest, mask| rest * mask);
            }
        }
        forecast
    }
}
