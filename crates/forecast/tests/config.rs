//! Options read from a pipeline file: defaults, errors, reference.

use deeprc_forecast::config::{Distribution, LossName, ModelConfig, ModelName, OptionError, ScalerType, TrainConfig, catalogue, configure};
use serde_json::{Value, json};

fn read(model: &str, options: &Value) -> Result<(ModelConfig, TrainConfig), Vec<OptionError>> {
    configure(model, options.as_object().expect("an object"))
}

/// The messages, one per line: key, what is wrong, hint.
fn errors(model: &str, options: &Value) -> Vec<String> {
    let errors = read(model, options).expect_err("must be refused");
    errors.into_iter().map(|e| format!("{}: {e}", e.key)).collect()
}

#[test]
fn defaults_are_those_of_neuralforecast() {
    let (model, train) = read("nhits", &json!({})).unwrap();
    assert_eq!(model, ModelConfig::of(ModelName::NHits));
    assert_eq!((train.max_steps, train.num_lr_decays, train.windows_batch_size), (1000, 3, 1024));
    let (_, train) = read("gru", &json!({})).unwrap();
    assert_eq!((train.windows_batch_size, train.scaler_type), (128, ScalerType::Robust));
    let (model, _) = read("gru", &json!({"h": 96})).unwrap();
    assert_eq!(model.input_size(), 3 * 96);
    let (_, train) = read("nlinear", &json!({})).unwrap();
    assert_eq!((train.max_steps, train.learning_rate), (5000, 1e-4));
    let (model, train) = read("deepar", &json!({"h": 12})).unwrap();
    assert_eq!((model.input_size(), model.samples(), train.num_lr_decays), (36, Some(100), 3));
    assert_eq!(
        (train.loss, train.distribution, train.valid_loss),
        (LossName::DistributionLoss, Distribution::StudentT, Some(LossName::Mae))
    );
}

#[test]
fn a_distribution_may_stand_for_its_loss() {
    let (_, short) = read("nhits", &json!({"loss": "negativebinomial"})).unwrap();
    let (_, long) = read("nhits", &json!({"loss": "distributionloss", "distribution": "NegativeBinomial"})).unwrap();
    assert_eq!(short, long);
    assert_eq!(short.distribution, Distribution::NegativeBinomial);
}

#[test]
fn values_of_both_groups_are_read_from_one_table() {
    let options =
        json!({"h": 96, "input_size": 336, "max_steps": 400, "loss": "huber", "mlp_units": [[16, 16], [16, 8]], "scaler_type": "minmax1"});
    let (model, train) = read("nhits", &options).unwrap();
    assert_eq!((model.h(), model.input_size(), train.max_steps, train.loss), (96, 336, 400, LossName::Huber));
    assert_eq!(train.scaler_type, ScalerType::MinMax1);
    let text = serde_json::to_string(&model).unwrap();
    assert!(text.starts_with(r#"{"name":"nhits","h":96"#), "{text}");
    assert_eq!(serde_json::from_str::<ModelConfig>(&text).unwrap(), model);
}

#[test]
fn unknown_models_and_keys_get_near_names() {
    assert_eq!(errors("nhit", &json!({})), [r#"model: unknown model "nhit" (hint: did you mean "nhits"?)"#]);
    let names: Vec<&str> = ModelName::ALL.iter().map(|name| name.as_str()).collect();
    let expect = format!(r#"model: unknown model "prophet" (hint: models are {})"#, names.join(", "));
    assert_eq!(errors("prophet", &json!({})), [expect]);
    let options = json!({"horizon": 24, "learning_rat": 0.1, "zebra": 1, "batch_size": 32});
    let expect = [
        "horizon: unknown option `horizon` of model nlinear (hint: did you mean `h`?)",
        "learning_rat: unknown option `learning_rat` of model nlinear (hint: did you mean `learning_rate`?)",
        "zebra: unknown option `zebra` of model nlinear (hint: `deeprc models nlinear` lists its options)",
        "batch_size: unknown option `batch_size` of model nlinear (hint: did you mean `windows_batch_size`?)",
    ];
    assert_eq!(errors("nlinear", &options), expect);
}

#[test]
fn all_errors_come_at_once() {
    let options = json!({"h": "day", "input_size": 0, "loss": "mapee", "learning_rate": -1.0, "n_blocks": [1]});
    let found = errors("nhits", &options);
    let keys: Vec<&str> = found.iter().map(|e| e.split(':').next().unwrap()).collect();
    assert_eq!(keys, ["h", "loss", "input_size", "n_blocks", "learning_rate"]);
    assert!(found[0].contains("expected usize") && found[0].contains("`h` is an integer, for example 24"), "{}", found[0]);
    assert!(found[1].contains("unknown variant `mapee`"), "{}", found[1]);
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let check = |model, options, key: &str| {
        let found = errors(model, &options);
        assert!(found.iter().all(|e| e.starts_with(key)) && found.len() == 1, "{found:?}");
    };
    check("gru", json!({"h": 4, "h_train": 5}), "h_train");
    check("lstm", json!({"mode": "simulation", "h": 3}), "h");
    check("nhits", json!({"interpolation_mode": "cubic", "loss": "mqloss"}), "interpolation_mode");
    check("nbeats", json!({"h": 1}), "h");
    check("nbeats", json!({"stack_types": ["trend"], "n_blocks": [1], "basis": "spline"}), "n_basis");
    check("tft", json!({"hidden_size": 30}), "hidden_size");
    check("timesnet", json!({"input_size": 4, "h": 2, "top_k": 4}), "top_k");
    check("nlinear", json!({"loss": "nse"}), "loss");
    check("nlinear", json!({"loss": "mae", "valid_loss": "mqloss"}), "valid_loss");
    check("nlinear", json!({"loss": "mqloss", "valid_loss": "distributionloss"}), "valid_loss");
    check("nlinear", json!({"loss": "mase", "seasonality": 48}), "seasonality");
    check("nlinear", json!({"h": 2, "horizon_weight": [1, 2, 3]}), "horizon_weight");
    check("gru", json!({"h": 2, "recurrent": true, "horizon_weight": [1, 2]}), "h_train");
    check("lstm", json!({"loss": "normal"}), "loss");
    check("deepar", json!({"decoder_hidden_layers": 1}), "decoder_hidden_size");
    check("nhits", json!({"mlp_units": [[8, 8], [16, 8]]}), "mlp_units");
}

#[test]
fn the_catalogue_names_every_option_with_its_default() {
    let entries = catalogue();
    assert!(entries.iter().map(|e| e.name).eq(ModelName::ALL.iter().map(|name| name.as_str())));
    for entry in &entries {
        let options: serde_json::Map<_, _> = entry.options.iter().map(|o| (o.name.to_owned(), o.default.clone())).collect();
        let (model, train) = configure(entry.name, &options).expect("its own defaults are accepted");
        assert_eq!((model.name().as_str(), &train), (entry.name, &model.train_defaults()));
        assert!(entry.options.iter().all(|o| o.doc.len() > 10 && !o.doc.contains("  ")), "{}", entry.name);
    }
    let steps = entries[0].options.iter().find(|o| o.name == "max_steps").unwrap();
    assert_eq!((steps.group, steps.kind, &steps.default), ("training", "integer", &json!(5000)));
    assert!(!entries[0].options.iter().any(|o| o.name == "batch_size"), "drawn windows have no passes");
}
