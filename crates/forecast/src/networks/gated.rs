//! Gated residual networks and the selection of variables by them, the parts that TFT is made of.

use tch::{Device, Kind, Tensor};

use super::attention::drop;
use crate::config::GrnActivation;
use crate::parameters::{LayerNorm, Linear, Parameters};

/// Of all normalisations in TFT.
pub(super) const EPS: f64 = 1e-3;

/// How a network is run: its dropout and non-linearity.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub activation: GrnActivation,
    /// 0 where nothing is learned.
    pub dropout: f64,
}

impl Run {
    fn activate(&self, x: &Tensor) -> Tensor {
        match self.activation {
            GrnActivation::ReLU => x.relu(),
            GrnActivation::Softplus => x.softplus(),
            GrnActivation::Tanh => x.tanh(),
            GrnActivation::SELU => x.selu(),
            GrnActivation::LeakyReLU => x.leaky_relu(),
            GrnActivation::Sigmoid => x.sigmoid(),
            GrnActivation::ELU => x.elu(),
            GrnActivation::GELU => x.gelu("none"),
        }
    }
}

/// `norm(glu(W_g dropout(W_i act(W_a a + W_c c))) + a)` (Lim et al. 2021, section 4.1), of one width.
#[derive(Debug)]
pub(super) struct Gated {
    a: Linear,
    /// `[width, width]`, without bias.
    c: Option<Tensor>,
    inner: Linear,
    gate: Linear,
    norm: LayerNorm,
}

impl Gated {
    /// `<name>.lin_a`, `.lin_c` if it takes a context, `.lin_i`, `.glu.lin`, `.layer_norm.ln`.
    pub(super) fn new(name: &str, width: i64, context: bool, parameters: &mut Parameters) -> Self {
        Self {
            norm: parameters.layer_norm(&format!("{name}.layer_norm.ln"), width, EPS),
            a: parameters.linear(&format!("{name}.lin_a"), width, width),
            c: context.then(|| context_map(name, width, parameters)),
            inner: parameters.linear(&format!("{name}.lin_i"), width, width),
            gate: parameters.linear(&format!("{name}.glu.lin"), width, 2 * width),
        }
    }

    /// `[.., width] -> [.., width]`; `context` is `[batch, width]` for `[batch, time, width]`.
    pub(super) fn forward(&self, x: &Tensor, context: Option<&Tensor>, run: Run) -> Tensor {
        let mut hidden = self.a.forward(x);
        if let (Some(weight), Some(context)) = (&self.c, context) {
            hidden = &hidden + context.linear(weight, None::<&Tensor>).unsqueeze(1);
        }
        self.norm.forward(&(self.gated(&run.activate(&hidden), None, run) + x))
    }

    /// Behind the activation up to the gate; `rows` repeats a single row of time if dropout treats each row differently.
    fn gated(&self, x: &Tensor, rows: Option<i64>, run: Run) -> Tensor {
        if run.dropout == 0.0 {
            return self.inner.then(&self.gate, x).glu(-1);
        }
        let x = self.inner.forward(x);
        let x = rows.map_or_else(|| x.shallow_clone(), |rows| x.expand([-1, rows, -1], false).contiguous());
        self.gate.forward(&drop(x, run.dropout, true)).glu(-1)
    }
}

fn context_map(name: &str, width: i64, parameters: &mut Parameters) -> Tensor {
    parameters.uniform(&format!("{name}.lin_c.weight"), &[width, width], 1.0 / (width as f64).sqrt())
}

/// Embeddings of real variables: variable i of value x becomes `x * vectors[i] + biases[i]`.
#[derive(Debug)]
pub(super) struct Embeddings {
    /// `[variables, width]`
    vectors: Tensor,
    /// `[variables, width]`
    biases: Tensor,
}

impl Embeddings {
    /// `<name>_vectors` and `<name>_bias`.
    pub(super) fn new(name: &str, variables: i64, width: i64, parameters: &mut Parameters) -> Self {
        // Xavier's normal values.
        let deviation = (2.0 / (variables + width) as f64).sqrt();
        let vectors = parameters.normal(&format!("{name}_vectors"), &[variables, width], deviation);
        let biases = parameters.learned(&format!("{name}_bias"), &Tensor::zeros([variables, width], (Kind::Float, Device::Cpu)));
        Self { vectors, biases }
    }

    /// The variables of several, in order.
    pub(super) fn together(all: &[&Embeddings]) -> Embeddings {
        let cat = |part: fn(&Embeddings) -> &Tensor| Tensor::cat(&all.iter().map(|e| part(e)).collect::<Vec<_>>(), 0);
        Embeddings { vectors: cat(|e| &e.vectors), biases: cat(|e| &e.biases) }
    }
}

/// Values of the variables that a selection chooses from.
pub(super) struct Variables<'a> {
    /// `[batch, time, variables]`, or `[batch, 1, variables]` without time.
    pub changing: Option<&'a Tensor>,
    /// `[batch, 1, variables]`: the same at all times; their embeddings follow those of the changing ones at `constant_at`.
    pub constant: Option<&'a Tensor>,
    /// Position of the first constant variable.
    pub constant_at: i64,
    /// Steps of time.
    pub rows: i64,
}

/// A network that weights variables, and one network per variable (Lim et al. 2021, section 4.2).
///
/// The embedding of a variable is linear in its value, so whatever linear map follows is a vector times the value: the widest
/// products of the network disappear.
#[derive(Debug)]
pub(super) struct Selection {
    joint: Joint,
    each: Vec<Gated>,
}

/// The gated residual network of all embeddings side by side, whose outputs weight the variables.
#[derive(Debug)]
struct Joint {
    a: [Tensor; 2],
    c: Tensor,
    inner: Linear,
    gate: Linear,
    skip: [Tensor; 2],
    /// None for a single variable, which has the weight one.
    norm: Option<LayerNorm>,
}

impl Selection {
    /// `<name>.joint_grn` and `<name>.var_grns.<i>`.
    pub(super) fn new(name: &str, width: i64, variables: i64, parameters: &mut Parameters) -> Self {
        let joint = Joint::new(&format!("{name}.joint_grn"), width, variables, parameters);
        let each = (0..variables).map(|i| Gated::new(&format!("{name}.var_grns.{i}"), width, false, parameters)).collect();
        Self { joint, each }
    }

    /// `[batch, time, width]`, or `[batch, 1, width]` if nothing changes in time and no dropout does; `context` is `[batch, width]`.
    pub(super) fn forward(&self, x: Variables, embeddings: &Embeddings, context: Option<&Tensor>, run: Run) -> Tensor {
        let values = x.together(); // [batch, time, variables]
        let weights = self.joint.norm.as_ref().map(|norm| self.joint.weights(norm, &values, embeddings, context, run));
        let weight = |i: i64| weights.as_ref().map(|w| w.narrow(-1, i, 1)); // [batch, time, 1]
        let mut sum: Option<Tensor> = None;
        for (number, network) in self.each.iter().enumerate() {
            let i = number as i64;
            let value = x.value(i); // [batch, time or 1, 1]
            let (vector, bias) = (embeddings.vectors.select(0, i), embeddings.biases.select(0, i));
            let hidden = network.a.of_embedding(&value, &vector, &bias);
            let gated = network.gated(&run.activate(&hidden), (value.size()[1] < x.rows).then_some(x.rows), run);
            let chosen = network.norm.forward(&(gated + bias.addcmul(&value, &vector)));
            sum = Some(match (sum, weight(i)) {
                (None, None) => chosen,
                (None, Some(weight)) => chosen * weight,
                (Some(sum), Some(weight)) => sum.addcmul(&chosen, &weight),
                (Some(_), None) => unreachable!("only a single variable has no weight"),
            });
        }
        sum.expect("at least one variable")
    }
}

impl Variables<'_> {
    /// `[batch, time, variables]` in the order of their embeddings.
    fn together(&self) -> Tensor {
        match (self.changing, self.constant) {
            (Some(changing), None) => changing.shallow_clone(),
            (None, Some(constant)) => constant.shallow_clone(),
            (Some(changing), Some(constant)) => {
                let (before, after) = (changing.narrow(2, 0, self.constant_at), changing.slice(2, self.constant_at, None, 1));
                Tensor::cat(&[before, constant.expand([-1, self.rows, -1], false), after], 2)
            }
            (None, None) => unreachable!("a selection has variables"),
        }
    }

    /// `[batch, time, 1]` of a changing variable, `[batch, 1, 1]` of a constant one.
    fn value(&self, number: i64) -> Tensor {
        let constants = self.constant.map_or(0, |c| c.size()[2]);
        match (self.changing, self.constant) {
            (_, Some(constant)) if (self.constant_at..self.constant_at + constants).contains(&number) => {
                constant.narrow(2, number - self.constant_at, 1)
            }
            (Some(changing), _) => changing.narrow(2, if number < self.constant_at { number } else { number - constants }, 1),
            _ => unreachable!("a selection has as many variables as embeddings"),
        }
    }
}

impl Joint {
    fn new(name: &str, width: i64, variables: i64, parameters: &mut Parameters) -> Self {
        let norm = (variables > 1).then(|| parameters.layer_norm(&format!("{name}.layer_norm.ln"), variables, EPS));
        let bound = 1.0 / ((width * variables) as f64).sqrt();
        let mut map = |part: &str, outputs: i64| {
            let weight = parameters.uniform(&format!("{name}.{part}.weight"), &[outputs, width * variables], bound);
            [weight, parameters.uniform(&format!("{name}.{part}.bias"), &[outputs], bound)]
        };
        let (a, skip) = (map("lin_a", width), map("out_proj", variables));
        Self {
            norm,
            a,
            skip,
            c: context_map(name, width, parameters),
            inner: parameters.linear(&format!("{name}.lin_i"), width, width),
            gate: parameters.linear(&format!("{name}.glu.lin"), width, 2 * variables),
        }
    }

    /// `[batch, time, variables]`, adding up to one.
    fn weights(&self, norm: &LayerNorm, values: &Tensor, embeddings: &Embeddings, context: Option<&Tensor>, run: Run) -> Tensor {
        let mut hidden = of_embeddings(&self.a, values, embeddings);
        if let Some(context) = context {
            hidden = &hidden + context.linear(&self.c, None::<&Tensor>).unsqueeze(1);
        }
        // This network has no dropout.
        let gated = self.inner.then(&self.gate, &run.activate(&hidden)).glu(-1);
        norm.forward(&(gated + of_embeddings(&self.skip, values, embeddings))).softmax(-1, Kind::Float)
    }
}

/// A linear map of embeddings side by side, from the values: `[.., variables] -> [.., outputs]`.
fn of_embeddings([weight, bias]: &[Tensor; 2], values: &Tensor, embeddings: &Embeddings) -> Tensor {
    let size = embeddings.vectors.size();
    let by_variable = weight.view([-1, size[0], size[1]]); // [outputs, variables, width]
    let of_values = (by_variable * &embeddings.vectors).sum_dim_intlist(-1, false, Kind::Float);
    let of_biases = weight.mv(&embeddings.biases.flatten(0, -1)) + bias;
    values.linear(&of_values, Some(&of_biases))
}
