//! Known numbers of real data, where they are present.

use crate::stage::{Stage, call, shared};
use deeprc_pipeline::functions::EvaluateResult;
use serde_json::json;

/// Persistence of next-day flow on the last fifth of the 19 basins, in cube-root space scaled to 0..1 over all training rows:
/// an independent study of the same files has NNSE 0.894 (mean over basins) and MSE 0.00060.
#[test]
fn persistence_of_real_streamflow_has_its_known_scores() {
    let Some(root) = shared("data/camels") else { return };
    let stage = Stage::new();
    for part in ["forcing", "streamflow"] {
        let arguments = json!({ "files": [root], "format": "camels", "part": part, "output": stage.path(part) });
        call(2, "table.read", arguments).unwrap();
    }
    let join = json!({
        "left": stage.path("forcing"), "right": stage.path("streamflow"), "on": ["gauge", "date"], "how": "left", "output": stage.path("joined"),
    });
    call(2, "table.join", join).unwrap();
    let derive = json!({
        "input": stage.path("joined"), "with": { "Q": "cbrt(q)" }, "select": ["gauge", "date", "Q"],
        "filter": "date >= '1993-10-08' and date <= '2013-10-01'", "output": stage.path("derived"),
    });
    assert_eq!(call(2, "table.derive", derive).unwrap()["rows"], 19 * 7299);
    let split = json!({
        "input": stage.path("derived"), "output": stage.path("parts"), "time": "date", "series": "gauge",
        "train": 0.8, "test": 0.2, "scale": { "Q": "minmax" }, "scope": "global",
    });
    call(2, "table.split", split).unwrap();
    let query = "select * from (select gauge, date, lag(date) over days as cutoff, \"Q\" as y, lag(\"Q\") over days as y_hat, split \
                 from parts window days as (partition by gauge order by date)) where split = 2";
    let sql = json!({ "query": query, "tables": { "parts": stage.path("parts") }, "output": stage.path("lagged") });
    call(2, "table.sql", sql).unwrap();
    let evaluate = json!({
        "forecasts": [{ "model": "lag", "table": stage.path("lagged") }],
        "table": stage.path("parts"),
        "dataset": {
            "columns": { "series": "gauge", "time": "date", "targets": ["Q"], "split": "split" }, "nulls": "mask", "gaps": "mask",
        },
        "metrics": ["nnse", "mse"], "baselines": ["persistence"], "output": stage.path("scores"),
    });
    let result: EvaluateResult = serde_json::from_value(call(2, "table.evaluate", evaluate).unwrap()).unwrap();
    let score = |model: &str, metric: &str| {
        let found = result.metrics.iter().find(|score| score.model == model && score.metric == metric && score.series.is_none());
        found.unwrap().value.unwrap()
    };
    assert!((score("persistence", "nnse") - 0.894).abs() < 2e-3, "{}", score("persistence", "nnse"));
    assert!((score("persistence", "mse") - 0.00060).abs() < 5e-5, "{}", score("persistence", "mse"));
    assert!((score("lag", "nnse") - score("persistence", "nnse")).abs() < 1e-3);
}
