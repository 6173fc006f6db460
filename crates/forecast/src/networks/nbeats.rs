//! NBEATS (Oreshkin et al. 2020): blocks that explain part of the lags and of the future by combining curves.

use tch::Tensor;

use super::basis::{seasonality, trend};
use super::block_mlp::BlockMlp;
use crate::config::{NBeatsConfig, StackType};
use crate::model::{Frame, Inputs, Model, Widths};
use crate::parameters::Parameters;

/// Stacks of blocks with backward and forward residual links.
///
/// ```text
///   residual ─► MLP ─► theta ─► curves ─► backcast ──► residual' = (residual - backcast) * mask
///                                     └─► added to the forecast, which starts at the last lag
/// ```
#[derive(Debug)]
pub struct NBeats {
    parameters: Parameters,
    frame: Frame,
    blocks: Vec<Block>,
    /// The block of each place in the chain: stacks with shared weights use one several times.
    chain: Vec<usize>,
    outputs: i64,
}

#[derive(Debug)]
struct Block {
    mlp: BlockMlp,
    /// Curves of backcast and forecast, `[curves, steps]`; none if theta holds the steps themselves.
    curves: Option<[Tensor; 2]>,
}

impl NBeats {
    /// Parameters are named `blocks.<i>.layers.<j>.weight`, the frozen curves `blocks.<i>.basis.backcast_basis` and `forecast_basis`.
    pub fn new(config: &NBeatsConfig, widths: Widths, mut parameters: Parameters) -> Self {
        let (mut blocks, mut chain) = (Vec::new(), Vec::new());
        for (stack, &count) in config.stack_types.iter().zip(&config.n_blocks) {
            for number in 0..count {
                let name = format!("blocks.{}", chain.len());
                if number > 0 && config.shared_weights {
                    // The library saves the shared block once more under each of its places.
                    parameters.repeats(&format!("blocks.{}.", chain.len() - number), &format!("{name}."));
                } else {
                    blocks.push(Block::new(&name, *stack, config, widths.outputs, &mut parameters));
                }
                chain.push(blocks.len() - 1);
            }
        }
        let frame = Frame::direct(config.input_size, config.h);
        Self { parameters, frame, blocks, chain, outputs: widths.outputs as i64 }
    }
}

impl Block {
    fn new(name: &str, stack: StackType, config: &NBeatsConfig, outputs: usize, parameters: &mut Parameters) -> Self {
        let (input, h) = (config.input_size, config.h);
        let curves = match stack {
            StackType::Identity => None,
            StackType::Trend => Some([input, h].map(|length| trend(config.basis, config.n_basis + 1, length))),
            StackType::Seasonality => {
                Some([(input, -1.0), (h, 1.0)].map(|(length, direction)| seasonality(config.n_harmonics, h, length, direction)))
            }
        };
        let theta = match &curves {
            None => input + outputs * h,
            Some([back, _]) => (1 + outputs) * back.size()[0] as usize,
        };
        let layers = format!("{name}.layers");
        let mlp =
            BlockMlp::new(&layers, [input, theta], &config.mlp_units, config.activation, config.dropout_prob_theta, false, parameters);
        let curves = curves.map(|[back, ahead]| {
            let mut frozen = |part: &str, curves: &Tensor| parameters.buffer(&format!("{name}.basis.{part}_basis"), curves);
            [frozen("backcast", &back), frozen("forecast", &ahead)]
        });
        Self { mlp, curves }
    }

    /// `[batch, hidden]` to the backcast `[batch, input]` and the forecast `[batch, horizon, outputs]`.
    fn both(&self, hidden: &Tensor, input: i64, outputs: i64) -> (Tensor, Tensor) {
        match &self.curves {
            None => {
                let theta = self.mlp.out().forward(hidden);
                (theta.slice(1, None, input, 1), theta.slice(1, input, None, 1).reshape([hidden.size()[0], -1, outputs]))
            }
            Some([back, _]) => {
                let backcast = self.mlp.out().part(0, back.size()[0]).onto(back, hidden);
                (backcast, self.forecast(hidden, input, outputs))
            }
        }
    }

    /// `[batch, hidden] -> [batch, horizon, outputs]`.
    fn forecast(&self, hidden: &Tensor, input: i64, outputs: i64) -> Tensor {
        let batch = hidden.size()[0];
        match &self.curves {
            None => self.mlp.out().rows(input).forward(hidden).view([batch, -1, outputs]),
            Some([_, ahead]) if outputs == 1 => self.mlp.out().rows(ahead.size()[0]).onto(ahead, hidden).unsqueeze(-1),
            Some([_, ahead]) => {
                let theta = self.mlp.out().rows(ahead.size()[0]).forward(hidden).view([batch, -1, outputs]); // [batch, curves, outputs]
                theta.transpose(1, 2).matmul(ahead).transpose(1, 2)
            }
        }
    }
}

impl Model for NBeats {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn frame(&self) -> Frame {
        self.frame
    }

    fn forward(&self, inputs: &Inputs, train: bool) -> Tensor {
        let lags = inputs.y.squeeze_dim(-1); // [batch, input]
        let mask = inputs.mask.as_ref().map(|m| m.squeeze_dim(-1).flip([1]));
        let input = self.frame.input as i64;
        let mut residual = lags.flip([1]);
        let mut forecast = lags.slice(1, -1, None, 1).unsqueeze(-1); // [batch, 1, 1]
        for (place, block) in self.chain.iter().enumerate() {
            let block = &self.blocks[*block];
            let hidden = block.mlp.hidden(&residual, train);
            if place + 1 == self.chain.len() {
                // Nobody reads what the last block leaves.
                return block.forecast(&hidden, input, self.outputs) + forecast;
            }
            let (backcast, ahead) = block.both(&hidden, input, self.outputs);
            forecast = ahead + forecast; // [batch, horizon, outputs]
            let rest = residual - backcast;
            residual = mask.iter().fold(rest, |rest, mask| rest * mask);
        }
        forecast
    }
}
