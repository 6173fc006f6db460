//! TFT (Lim et al. 2021): selected variables, a recurrent encoder and decoder, attention of the horizon to all steps.

use tch::{Kind, Tensor};

use super::attention::drop;
use super::gated::{EPS, Embeddings, Gated, Run, Selection, Variables};
use crate::config::{GrnActivation, RnnType, TftConfig};
use crate::model::{Frame, Inputs, Model, Widths};
use crate::parameters::{LayerNorm, Linear, Parameters, Recurrent};

/// Temporal fusion transformer.
///
/// ```text
///   stat ─► selection ─► contexts: of selections, of the recurrent state, of enrichment
///   hist | futr | y ─► selection ─► recurrent ─┐
///             futr  ─► selection ─► recurrent ─┴─► gate ─► enrichment ─► attention ─► gates ─► forecast
/// ```
///
/// Without futr columns the last lag stands in for one at all times, as in NeuralForecast.
#[derive(Debug)]
pub struct Tft {
    parameters: Parameters,
    frame: Frame,
    config: TftConfig,
    widths: Widths,
    embeddings: Embedded,
    statics: Option<Statics>,
    history: Selection,
    future: Selection,
    encoder: Recurrent,
    decoder: Recurrent,
    input_gate: GatedSkip,
    enrichment: Gated,
    attention: Attention,
    attention_gate: GatedSkip,
    positionwise: Gated,
    decoder_gate: GatedSkip,
    output: Linear,
}

#[derive(Debug)]
struct Embedded {
    stat: Option<Embeddings>,
    futr: Embeddings,
    hist: Option<Embeddings>,
    target: Embeddings,
}

/// What the static columns say to the rest.
#[derive(Debug)]
struct Statics {
    selection: Selection,
    /// Of selections, of enrichment, of each hidden state, of each cell state.
    contexts: Vec<Gated>,
}

/// The contexts, `[batch, width]`, and states, `[layers, batch, width]`.
struct Contexts {
    selection: Tensor,
    enrichment: Tensor,
    hidden: Tensor,
    cell: Tensor,
}

/// `norm(glu(W x) + skip)`.
#[derive(Debug)]
struct GatedSkip {
    gate: Linear,
    norm: LayerNorm,
}

/// Attention whose heads share their values, so that their mean weights show what was looked at.
#[derive(Debug)]
struct Attention {
    /// `[(2 heads + 1) * size, width]`
    projections: Tensor,
    /// `[width, size]`
    out: Tensor,
    /// `[horizon, steps]`: minus infinity where a step lies behind the one that looks.
    mask: Tensor,
    heads: i64,
    size: i64,
}

impl Tft {
    /// Parameters are named as NeuralForecast's: `embedding`, `static_encoder`, `temporal_encoder`, `temporal_fusion_decoder`,
    /// `output_adapter`.
    pub fn new(config: &TftConfig, widths: Widths, mut parameters: Parameters) -> Self {
        let p = &mut parameters;
        let (width, layers) = (config.hidden_size as i64, config.n_rnn_layers as i64);
        let (hist, stat, target) = (widths.hist as i64, widths.stat as i64, config.tgt_size as i64);
        let futr = widths.futr.max(1) as i64;
        let embedding =
            |name: &str, variables, p: &mut Parameters| Embeddings::new(&format!("embedding.{name}_embedding"), variables, width, p);
        let embeddings = Embedded {
            stat: (stat > 0).then(|| embedding("stat_exog", stat, p)),
            futr: embedding("futr_exog", futr, p),
            hist: (hist > 0).then(|| embedding("hist_exog", hist, p)),
            target: embedding("tgt", target, p),
        };
        let statics = (stat > 0).then(|| Statics::new(config, stat, p));
        let gates = if config.rnn_type == RnnType::Lstm { 4 } else { 3 };
        let history = Selection::new("temporal_encoder.history_vsn", width, hist + futr + target, p);
        let encoder = p.recurrent("temporal_encoder.history_encoder", gates, width, width, layers, true);
        let decoder = p.recurrent("temporal_encoder.future_encoder", gates, width, width, layers, true);
        let future = Selection::new("temporal_encoder.future_vsn", width, futr, p);
        let input_gate = GatedSkip::new(["temporal_encoder.input_gate", "temporal_encoder.input_gate_ln"], width, p);
        let enrichment = Gated::new("temporal_fusion_decoder.enrichment_grn", width, true, p);
        let attention = Attention::new("temporal_fusion_decoder.attention", config, p);
        let attention_gate = GatedSkip::new(["temporal_fusion_decoder.attention_gate", "temporal_fusion_decoder.attention_ln"], width, p);
        let positionwise = Gated::new("temporal_fusion_decoder.positionwise_grn", width, false, p);
        let decoder_gate = GatedSkip::new(["temporal_fusion_decoder.decoder_gate", "temporal_fusion_decoder.decoder_ln"], width, p);
        let output = p.linear("output_adapter", width, widths.outputs as i64);
        // A single variable has the weight one whatever its network says, and without static columns all contexts are zero.
        let single = |network: &str, variables: i64| (variables == 1).then(|| format!("{network}.joint_grn."));
        let unread = [single("static_encoder.vsn", stat), single("temporal_encoder.future_vsn", futr)];
        p.idle(|name| {
            let no_context = name.ends_with("lin_c.weight") && (stat == 0 || name.starts_with("static_encoder."));
            no_context || unread.iter().flatten().any(|prefix| name.starts_with(prefix))
        });
        Self {
            parameters,
            frame: Frame::direct(config.input_size, config.h),
            config: config.clone(),
            widths,
            embeddings,
            statics,
            history,
            future,
            encoder,
            decoder,
            input_gate,
            enrichment,
            attention,
            attention_gate,
            positionwise,
            decoder_gate,
            output,
        }
    }

    fn run(&self, train: bool) -> Run {
        Run { activation: self.config.grn_activation, dropout: if train { self.config.dropout } else { 0.0 } }
    }

    /// The selected variables of input and horizon, `[batch, rows, width]` each.
    fn selected(&self, inputs: &Inputs, context: Option<&Tensor>, run: Run) -> [Tensor; 2] {
        let (input, h) = (self.frame.input as i64, self.frame.horizon as i64);
        let embedded = &self.embeddings;
        let all: Vec<&Embeddings> = embedded.hist.iter().chain([&embedded.futr, &embedded.target]).collect();
        let target = inputs.y.expand([-1, -1, self.config.tgt_size as i64], false);
        let past: Vec<Tensor> = match &inputs.futr {
            Some(futr) => inputs.hist.iter().map(Tensor::shallow_clone).chain([futr.narrow(1, 0, input), target]).collect(),
            None => inputs.hist.iter().map(Tensor::shallow_clone).chain([target]).collect(),
        };
        let past = Tensor::cat(&past, 2);
        let ahead = inputs.futr.as_ref().map(|futr| futr.narrow(1, input, h));
        let last = inputs.futr.is_none().then(|| inputs.y.slice(1, -1, None, 1)); // [batch, 1, 1]
        let of_past = Variables { changing: Some(&past), constant: last.as_ref(), constant_at: self.widths.hist as i64, rows: input };
        let of_ahead = Variables { changing: ahead.as_ref(), constant: last.as_ref(), constant_at: 0, rows: h };
        let history = self.history.forward(of_past, &Embeddings::together(&all), context, run);
        let future = self.future.forward(of_ahead, &embedded.futr, context, run);
        [history, future.expand([-1, h, -1], false)]
    }

    /// The recurrent layers over input and horizon, `[batch, input + horizon, width]`.
    fn recur(&self, [history, future]: &[Tensor; 2], contexts: Option<&Contexts>) -> Tensor {
        let state = contexts.map_or_else(|| self.encoder.zeros(history), |c| c.hidden.shallow_clone());
        let steps = match self.config.rnn_type {
            RnnType::Lstm => {
                let cell = contexts.map_or_else(|| state.shallow_clone(), |c| c.cell.shallow_clone());
                let (before, state) = self.encoder.lstm_from(history, Some((state, cell)), 0.0, false);
                [before, self.decoder.lstm_from(future, Some(state), 0.0, false).0]
            }
            RnnType::Gru => {
                let (before, hidden) = self.encoder.gru(history, &state, 0.0, false);
                [before, self.decoder.gru(future, &hidden, 0.0, false).0]
            }
        };
        Tensor::cat(&steps, 1)
    }
}

impl Statics {
    fn new(config: &TftConfig, variables: i64, parameters: &mut Parameters) -> Self {
        let width = config.hidden_size as i64;
        let selection = Selection::new("static_encoder.vsn", width, variables, parameters);
        let states = if config.one_rnn_initial_state { 1 } else { config.n_rnn_layers };
        let count = 2 + states * if config.rnn_type == RnnType::Lstm { 2 } else { 1 };
        let contexts = (0..count).map(|i| Gated::new(&format!("static_encoder.context_grns.{i}"), width, false, parameters));
        Self { selection, contexts: contexts.collect() }
    }

    /// Of `[batch, stat]`.
    fn forward(&self, stat: &Tensor, embeddings: &Embeddings, config: &TftConfig, run: Run) -> Contexts {
        let values = stat.unsqueeze(1); // [batch, 1, stat]
        let variables = Variables { changing: Some(&values), constant: None, constant_at: values.size()[2], rows: 1 };
        let x = self.selection.forward(variables, embeddings, None, run);
        // The library gives these networks their default activation, whatever the option says.
        let run = Run { activation: GrnActivation::ELU, ..run };
        let mut contexts: Vec<Tensor> = self.contexts.iter().map(|network| network.forward(&x, None, run).squeeze_dim(1)).collect();
        let states = contexts.split_off(2);
        let layers = config.n_rnn_layers as i64;
        let state = |states: &[Tensor]| {
            let stacked = Tensor::stack(states, 0); // [states, batch, width]
            stacked.expand([layers, -1, -1], false).contiguous()
        };
        let (hidden, cell) = match config.rnn_type {
            RnnType::Lstm => states.split_at(states.len() / 2),
            RnnType::Gru => (states.as_slice(), states.as_slice()),
        };
        let (hidden, cell) = (state(hidden), state(cell));
        let enrichment = contexts.remove(1);
        Contexts { selection: contexts.remove(0), enrichment, hidden, cell }
    }
}

impl GatedSkip {
    /// `<gate>.lin` and `<norm>`.
    fn new([gate, norm]: [&str; 2], width: i64, parameters: &mut Parameters) -> Self {
        let gate = parameters.linear(&format!("{gate}.lin"), width, 2 * width);
        Self { gate, norm: parameters.layer_norm(norm, width, EPS) }
    }

    /// `[.., width] -> [.., width]`.
    fn forward(&self, x: &Tensor, skip: &Tensor) -> Tensor {
        self.norm.forward(&(self.gate.forward(x).glu(-1) + skip))
    }
}

impl Attention {
    fn new(name: &str, config: &TftConfig, parameters: &mut Parameters) -> Self {
        let (width, heads, h) = (config.hidden_size as i64, config.n_head as i64, config.h as i64);
        let size = width / heads;
        parameters.computed(&format!("{name}._mask"));
        let steps = config.input_size as i64 + h;
        let mask = Tensor::full([h, steps], f64::NEG_INFINITY, (Kind::Float, parameters.device())).triu(steps - h + 1);
        let (inputs, values) = (1.0 / (width as f64).sqrt(), 1.0 / (size as f64).sqrt());
        let projections = parameters.uniform(&format!("{name}.qkv_linears.weight"), &[(2 * heads + 1) * size, width], inputs);
        let out = parameters.uniform(&format!("{name}.out_proj.weight"), &[width, size], values);
        Self { projections, out, mask, heads, size }
    }

    /// The last steps, as many as the mask has rows, look at all steps: `[batch, steps, width] -> [batch, horizon, width]`.
    fn forward(&self, x: &Tensor, weight_dropout: f64) -> Tensor {
        let (batch, inner, h) = (x.size()[0], self.heads * self.size, self.mask.size()[0]);
        let query = x.slice(1, -h, None, 1).linear(&self.projections.narrow(0, 0, inner), None::<&Tensor>);
        let others = x.linear(&self.projections.slice(0, inner, None, 1), None::<&Tensor>);
        let query = (query * (self.size as f64).powf(-0.5)).view([batch, h, self.heads, self.size]).transpose(1, 2);
        let key = others.slice(2, None, inner, 1).view([batch, -1, self.heads, self.size]).permute([0, 2, 3, 1]);
        let weights = (query.matmul(&key) + &self.mask).softmax(-1, Kind::Float); // [batch, heads, horizon, steps]
        // The heads have one set of values, so the mean of their results is the result of their mean weights.
        let weights = drop(weights, weight_dropout, true).mean_dim(1, false, Kind::Float);
        weights.matmul(&others.slice(2, inner, None, 1)).linear(&self.out, None::<&Tensor>)
    }
}

impl Model for Tft {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn frame(&self) -> Frame {
        self.frame
    }

    fn forward(&self, inputs: &Inputs, train: bool) -> Tensor {
        let (run, input) = (self.run(train), self.frame.input as i64);
        let statics = self.statics.as_ref().zip(self.embeddings.stat.as_ref()).zip(inputs.stat.as_ref());
        let contexts = statics.map(|((statics, embeddings), stat)| statics.forward(stat, embeddings, &self.config, run));
        let selected = self.selected(inputs, contexts.as_ref().map(|c| &c.selection), run);
        let temporal = self.input_gate.forward(&self.recur(&selected, contexts.as_ref()), &Tensor::cat(&selected, 1));
        let enriched = self.enrichment.forward(&temporal, contexts.as_ref().map(|c| &c.enrichment), run);
        let attended = self.attention.forward(&enriched, if train { self.config.attn_dropout } else { 0.0 });
        let attended = drop(attended, run.dropout, train); // [batch, horizon, width]
        let x = self.attention_gate.forward(&attended, &enriched.slice(1, input, None, 1));
        let x = self.positionwise.forward(&x, None, run);
        self.output.forward(&self.decoder_gate.forward(&x, &temporal.slice(1, input, None, 1)))
    }
}
