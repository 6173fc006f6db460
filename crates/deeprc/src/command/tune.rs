//! `deeprc tune`: a search for good options of models on a table, without a pipeline file.

use super::train;
use crate::exit::Exit;
use crate::printer::Printer;
use crate::recipe::value;

/// Arguments of `deeprc tune`: those of `train`, and how to search.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    train: train::Args,
    /// Trials of each model
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    trials: u32,
    /// How options are drawn: tpe learns from earlier trials
    #[arg(long, default_value = "tpe", value_parser = ["tpe", "random"])]
    sampler: String,
    /// Trials that run side by side before the next ones are drawn
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    parallel: u32,
    /// Stop poor trials early: one of N goes on from each rung to the next
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    halving: Option<u32>,
    /// Rungs of the halving (2 unless given)
    #[arg(long, value_name = "N", requires = "halving", value_parser = clap::value_parser!(u32).range(2..))]
    rungs: Option<u32>,
    /// What varies, instead of the ranges of NeuralForecast's Auto models: `learning_rate=1e-4..1e-2:log`, `max_steps=200..600:100`
    /// (in steps of 100) or a list `hidden_size=[64,128]`
    #[arg(long = "vary", value_name = "OPTION=RANGE", value_parser = range)]
    vary: Vec<(String, String)>,
}

/// `key=range` as TOML.
fn range(text: &str) -> Result<(String, String), String> {
    let (key, range) = super::assignment(text)?;
    let Some((low, rest)) = range.split_once("..") else {
        let list = value(&range);
        return if list.starts_with('[') {
            Ok((key, list))
        } else {
            Err("give LOW..HIGH, LOW..HIGH:log, LOW..HIGH:STEP or [A,B,C]".into())
        };
    };
    let (high, kind) = rest.split_once(':').map_or((rest, None), |(high, kind)| (high, Some(kind)));
    let number = |text: &str| text.parse::<f64>().map_err(|_| format!("`{text}` is no number"));
    let (low, high) = (number(low)?, number(high)?);
    let more = match kind {
        None => String::new(),
        Some("log") => ", log = true".into(),
        Some(step) => format!(", step = {}", number(step)?),
    };
    Ok((key, format!("{{ low = {low}, high = {high}{more} }}")))
}

/// Writes the pipeline into a fresh run directory and runs it.
pub fn main(args: &Args, printer: Printer) -> Exit {
    let mut search =
        vec![format!("trials = {}", args.trials), format!("sampler = \"{}\"", args.sampler), format!("parallel = {}", args.parallel)];
    search.extend(args.halving.map(|halving| format!("halving = {halving}")));
    search.extend(args.rungs.map(|rungs| format!("rungs = {rungs}")));
    if !args.vary.is_empty() {
        let space: Vec<String> = args.vary.iter().map(|(key, range)| format!("{key} = {range}")).collect();
        search.push(format!("space = {{ {} }}", space.join(", ")));
    }
    train::run_recipe(&args.train, Some(format!("{{ {} }}", search.join(", "))), printer)
}

#[cfg(test)]
mod tests {
    use super::range;

    #[test]
    fn ranges_become_toml() {
        let toml = |text| range(text).unwrap().1;
        assert_eq!(toml("learning_rate=1e-4..1e-2:log"), "{ low = 0.0001, high = 0.01, log = true }");
        assert_eq!(toml("max_steps=200..600:100"), "{ low = 200, high = 600, step = 100 }");
        assert_eq!(toml("hidden_size=[64,128]"), "[64,128]");
        assert!(range("hidden_size=64").is_err() && range("x=a..b").is_err() && range("x").is_err());
    }
}
