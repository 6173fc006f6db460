//! Parity with NeuralForecast 3.3.0: every fixture of every model, and the scalers.
//!
//! `DEEPRC_FIXTURES` names another folder with the same layout.

use crate::fixture::{Case, close, folder, tensors, test_each_model, variants};
use deeprc_forecast::config::ScalerType;
use deeprc_forecast::distribution::Arguments;
use deeprc_forecast::loss::Loss;
use deeprc_forecast::model::{Frame, Widths};
use deeprc_forecast::optimizer::Adam;
use deeprc_forecast::preparation::{Preparation, Prepared};
use deeprc_forecast::scaler::Scale;
use deeprc_forecast::{Windows, checkpoint::load_weights};
use serde_json::Value;
use tch::{Device, Tensor};

/// Windows as the fixture stores them, without the last column, which is the mask.
fn windows(case: &Case) -> Windows {
    let raw = case.io["raw.temporal"].squeeze_dim(-1); // [batch, rows, channels + 1]
    let channels = raw.size()[2] - 1;
    let mask = raw.narrow(2, channels, 1).expand([-1, -1, channels], false).contiguous();
    Windows {
        temporal: raw.narrow(2, 0, channels).contiguous(),
        mask: Some(mask),
        stat: case.io.get("raw.static").map(Tensor::shallow_clone),
        series: vec![0; raw.size()[0] as usize],
    }
}

fn prepare(case: &Case, frame: Frame, widths: Widths) -> Prepared {
    Preparation::plain(frame, widths, case.train.scaler_type).prepare(windows(case), frame.train_horizon)
}

fn check_inputs(case: &Case, prepared: &Prepared) {
    let name = &case.name;
    let inputs = [
        ("in.insample_y", Some(&prepared.inputs.y)),
        ("in.insample_mask", prepared.inputs.mask.as_ref()),
        ("in.hist_exog", prepared.inputs.hist.as_ref()),
        ("in.futr_exog", prepared.inputs.futr.as_ref()),
        ("in.stat_exog", prepared.inputs.stat.as_ref()),
        ("in.outsample_y", Some(&prepared.target.y)),
        ("in.outsample_mask", prepared.target.mask.as_ref()),
    ];
    for (key, ours) in inputs {
        assert_eq!(ours.is_some(), case.io.contains_key(key), "{name} {key}");
        ours.into_iter().for_each(|ours| close(&format!("{name} {key}"), ours, &case.io[key], 1e-6));
    }
}

fn check_model(model: &str) {
    variants(model, false).for_each(|variant| check_case(&Case::load(model, &variant)));
}

fn check_case(case: &Case) {
    let (name, model, loss) = (&case.name, case.build(), Loss::training(&case.train));
    load_weights(&case.file("weights.safetensors"), model.parameters()).unwrap();
    assert_eq!(Some(model.parameters().count()), case.config["n_parameters"].as_u64(), "{name}");
    let prepared = prepare(case, model.frame(), case.widths());
    check_inputs(case, &prepared);

    close(&format!("{name} out.train"), &model.forward(&prepared.inputs, true), &case.io["out.train"], 1e-4);
    // Training moves the running statistics of batch norms.
    load_weights(&case.file("weights.safetensors"), model.parameters()).unwrap();
    let out = model.forward(&prepared.inputs, false);
    close(&format!("{name} out.eval"), &out, &case.io["out.eval"], 1e-4);
    if let Some(expect) = case.io.get("out.eval_denorm") {
        let back = prepared.scale.as_ref().map_or(out.shallow_clone(), |s| s.inverse(&out, 1, loss.outputs() as i64));
        close(&format!("{name} out.eval_denorm"), &back, expect, 1e-4);
    }
    if let Loss::Distribution { distribution, .. } = &loss {
        let level = prepared.scale.as_ref().map(|s| s.level(1));
        let arguments = Arguments::of(*distribution, &out, 1, level.as_ref().map(|(location, scale)| (location, scale)));
        let expect = (0..).map_while(|n| case.io.get(&format!("out.eval_distr_arg{n}"))).collect::<Vec<_>>();
        assert_eq!(arguments.values().len(), expect.len(), "{name}");
        for (n, (ours, expect)) in arguments.values().iter().zip(expect).enumerate() {
            close(&format!("{name} out.eval_distr_arg{n}"), ours, expect, 1e-4);
        }
        close(&format!("{name} out.eval_distr_mean"), &arguments.mean(), &case.io["out.eval_distr_mean"], 1e-4);
    }
    let value = loss.train(&prepared, &out);
    case.near("loss_eval", value.double_value(&[]), 1e-5);

    let parameters = model.parameters();
    let gradients = Tensor::run_backward(&[&value], parameters.tensors(), false, false);
    for (parameter, ours) in parameters.names().iter().zip(&gradients) {
        let Some(expect) = case.io.get(&format!("grad_eval.{parameter}")) else { continue };
        let norm = expect.norm().double_value(&[]);
        let error = (ours - expect).norm().double_value(&[]);
        assert!(norm <= 1e-4 || error <= 1e-3 * norm, "{name} gradient of {parameter}: {error} of {norm}");
    }

    let mut adam = Adam::new(parameters.tensors(), Device::Cpu);
    for expect in case.config["results"]["adam5_losses_train_mode_lr1e-3"].as_array().unwrap() {
        let value = loss.train(&prepared, &model.forward(&prepared.inputs, true));
        let (ours, theirs) = (value.double_value(&[]), expect.as_f64().unwrap());
        assert!((ours - theirs).abs() <= 1e-4 * theirs.abs(), "{name} Adam: {ours}, expected {theirs}");
        let gradients = Tensor::run_backward(&[&value], parameters.tensors(), false, false);
        adam.step(parameters.tensors(), &gradients, 1e-3, 0.0).unwrap();
    }
    close(&format!("{name} after Adam"), &model.forward(&prepared.inputs, false), &case.io["out.eval_after_adam5"], 1e-3);
}

test_each_model! { check_model:
    nlinear_equals_neuralforecast "NLinear",
    nhits_equals_neuralforecast "NHITS",
    gru_equals_neuralforecast "GRU",
    deepar_equals_neuralforecast "DeepAR",
    patchtst_equals_neuralforecast "PatchTST",
    vanillatransformer_equals_neuralforecast "VanillaTransformer",
    autoformer_equals_neuralforecast "Autoformer",
    nbeats_equals_neuralforecast "NBEATS",
    tide_equals_neuralforecast "TiDE",
    tft_equals_neuralforecast "TFT",
    timesnet_equals_neuralforecast "TimesNet",
}

#[test]
fn scalers_equal_neuralforecast() {
    let all = tensors(&folder().join("common/scalers.safetensors"));
    let (x, mask) = (all["x"].squeeze_dim(-1), all["mask"].squeeze_dim(-1));
    for name in ["identity", "standard", "robust", "minmax", "minmax1", "invariant", "revin"] {
        let scaler: ScalerType = serde_json::from_value(Value::from(name)).unwrap();
        let expect = |part: &str| all[&format!("{name}.{part}")].squeeze_dim(-1);
        let Some(scale) = Scale::fit(scaler, &x, Some(&mask), x.size()[1]) else {
            close(name, &x, &expect("z"), 1e-6);
            continue;
        };
        close(&format!("{name} shift"), &scale.shift, &expect("shift"), 1e-6);
        close(&format!("{name} scale"), &scale.scale, &expect("scale"), 1e-6);
        let z = scale.transform(&x);
        close(&format!("{name} z"), &z, &expect("z"), 1e-5);
        close(&format!("{name} inverse"), &scale.inverse(&z, 3, 1), &expect("inverse"), 1e-5);
    }
}
