//! The pipeline behind `deeprc train` and `deeprc tune`: one table, one or more models, evaluated. As a file, so that it can be read, changed and run again.

use std::fmt::Write as _;
use std::path::PathBuf;

/// What to train on what.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Name of the pipeline and of its runs.
    pub name: String,
    /// Start of all random numbers.
    pub seed: u64,
    /// Files of the table, absolute.
    pub files: Vec<PathBuf>,
    /// Column of the stamps.
    pub time: String,
    /// Column of the series' names.
    pub series: Option<String>,
    /// Columns to forecast.
    pub targets: Vec<String>,
    /// True to make each target column a series of its own, for models that forecast one target.
    pub unpivot: bool,
    /// Exogenous columns: `hist`, `futr` and `stat`.
    pub exogenous: [Vec<String>; 3],
    /// Models to train side by side.
    pub models: Vec<String>,
    /// Steps to forecast.
    pub h: usize,
    /// Steps of history that the models see; none leaves it to the search.
    pub input_size: Option<usize>,
    /// Further options, `learning_rate` or, for one model of several, `nhits.learning_rate`.
    pub options: Vec<(String, String)>,
    /// The search for good options, `{ … }` as in a pipeline file.
    pub search: Option<String>,
    /// Sizes of the parts: rows, a fraction or a date.
    pub parts: Parts,
    /// Scaling of the targets by their training rows: `standard`, `minmax` or `none`.
    pub scale: String,
    /// Metrics of the test part.
    pub metrics: Vec<String>,
    /// Steps between two forecasts of the test part.
    pub step: usize,
    /// Rows of a season, for the baseline and MASE.
    pub season: usize,
    /// Ranks that share each training.
    pub ranks: u32,
}

/// Sizes of the parts of a table.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Of the validation part.
    pub validation: String,
    /// Of the test part.
    pub test: String,
}

impl Recipe {
    /// The pipeline file.
    pub fn toml(&self) -> String {
        let mut text = String::from(
            "# Written by `deeprc train` or `deeprc tune`. Change it and run it with `deeprc run FILE`; `deeprc models MODEL` lists all options.\n",
        );
        let mut line = |text_of_line: String| {
            let _ = writeln!(text, "{text_of_line}");
        };
        let pair = |key: &str, value: String| format!("{key} = {value}");
        let stage = |name: &str, kind: &str| format!("\n[stage.{name}]\nkind = {}", quoted(kind));
        line(pair("name", quoted(&self.name)));
        line(pair("seed", self.seed.to_string()));

        line(stage("table", "read"));
        line(pair("files", list(self.files.iter().map(|file| file.display().to_string()))));
        let (input, target, series) = match self.unpivot {
            false => ("table", list(&self.targets), self.series.clone()),
            true => {
                line(stage("long", "derive"));
                line(pair("input", quoted("table")));
                line(pair("unpivot", format!("{{ columns = {} }}", list(&self.targets))));
                ("long", list(["y"]), Some("unique_id".to_owned()))
            }
        };

        line(stage("parts", "split"));
        line(pair("input", quoted(input)));
        line(pair("time", quoted(&self.time)));
        series.iter().for_each(|series| line(pair("series", quoted(series))));
        line(pair("validation", value(&self.parts.validation)));
        line(pair("test", value(&self.parts.test)));
        if self.scale != "none" {
            let scaled: Vec<&str> = if self.unpivot { vec!["y"] } else { self.targets.iter().map(String::as_str).collect() };
            let scaled = scaled.iter().map(|target| format!("{} = {}", quoted(target), quoted(&self.scale)));
            line(pair("scale", format!("{{ {} }}", scaled.collect::<Vec<_>>().join(", "))));
        }

        line(stage("fit", "train"));
        line(pair("input", quoted("parts")));
        line(pair("targets", target));
        for (kind, columns) in ["hist", "futr", "stat"].iter().zip(&self.exogenous) {
            if !columns.is_empty() {
                line(pair(kind, list(columns)));
            }
        }
        match self.models.as_slice() {
            [model] => line(pair("model", quoted(model))),
            several => line(pair("matrix", format!("{{ model = {} }}", list(several)))),
        }
        line(pair("h", self.h.to_string()));
        self.input_size.iter().for_each(|rows| line(pair("input_size", rows.to_string())));
        if self.ranks > 1 {
            line(pair("ranks", self.ranks.to_string()));
        }
        let common = self.options.iter().filter(|(key, _)| !key.contains('.'));
        common.for_each(|(key, option)| line(pair(key, value(option))));
        for model in &self.models {
            let own: Vec<String> = self
                .options
                .iter()
                .filter_map(|(key, option)| Some(pair(key.strip_prefix(model.as_str())?.strip_prefix('.')?, value(option))))
                .collect();
            if !own.is_empty() {
                line(format!("options.{model} = {{ {} }}", own.join(", ")));
            }
        }

        self.search.iter().for_each(|search| line(pair("search", search.clone())));

        line(stage("forecast", "predict"));
        line(pair("model", quoted("fit")));
        line(pair("step", self.step.to_string()));

        line(stage("scores", "evaluate"));
        line(pair("input", quoted("forecast")));
        line(pair("metrics", list(&self.metrics)));
        line(pair("baseline", quoted("seasonal-naive")));
        line(pair("season", self.season.to_string()));
        text
    }
}

/// A TOML string. JSON's escapes are TOML's too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn list<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    format!("[{}]", items.into_iter().map(|item| quoted(item.as_ref())).collect::<Vec<_>>().join(", "))
}

/// A value as it was typed: numbers, truth values and lists stay what they are, all else is a string.
pub fn value(typed: &str) -> String {
    match serde_json::from_str::<serde_json::Value>(typed) {
        Ok(serde_json::Value::Null | serde_json::Value::Object(_)) | Err(_) => quoted(typed),
        Ok(value) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::value;

    #[test]
    fn values_keep_their_type() {
        for (typed, toml) in
            [("3", "3"), ("1e-3", "0.001"), ("true", "true"), ("[2, 2]", "[2,2]"), ("mae", "\"mae\""), ("2017-01-01", "\"2017-01-01\"")]
        {
            assert_eq!(value(typed), toml);
        }
    }
}
