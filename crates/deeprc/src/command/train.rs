//! `deeprc train`: models on a table, without a pipeline file.

use std::path::PathBuf;

use clap::ArgAction;
use deeprc_forecast::config::{catalogue, configure};
use deeprc_pipeline::functions::{Format, ReadArguments, read_schema};
use serde_json::Map;

use super::run;
use crate::exit::Exit;
use crate::printer::Printer;
use crate::recipe::{Parts, Recipe};

/// Arguments of `deeprc train`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Table to learn from: a CSV or Parquet file, or several with the same columns
    #[arg(long = "table", value_name = "FILE", required = true, num_args = 1..)]
    tables: Vec<PathBuf>,
    /// Model to train, several separated by commas; `deeprc models` lists them
    #[arg(long = "model", value_name = "MODEL", required = true, value_delimiter = ',')]
    models: Vec<String>,
    /// Column to forecast (`y` unless given); several become one series each, unless the model forecasts several targets
    #[arg(long = "target", value_name = "COLUMN", value_delimiter = ',')]
    targets: Vec<String>,
    /// Column of the time stamps (`ds`, `date`, `time` or `timestamp` unless given)
    #[arg(long, value_name = "COLUMN")]
    time: Option<String>,
    /// Column that names the series (`unique_id` if there is one)
    #[arg(long, value_name = "COLUMN")]
    series: Option<String>,
    /// Exogenous columns known up to now
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    hist: Vec<String>,
    /// Exogenous columns known ahead
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    futr: Vec<String>,
    /// Columns constant in time
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    stat: Vec<String>,
    /// Steps to forecast
    #[arg(long, value_name = "STEPS", default_value_t = 24, value_parser = positive)]
    h: usize,
    /// Steps of history that the models see (twice `h` unless given; `tune` searches it unless given)
    #[arg(long, value_name = "STEPS", value_parser = positive)]
    input_size: Option<usize>,
    /// Any other option of the models or of training: `max_steps=400`, for one of several models `nhits.learning_rate=1e-4`
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = super::assignment)]
    set: Vec<(String, String)>,
    /// Size of the validation part: a fraction, rows per series, or the date at which it ends
    #[arg(long, value_name = "SIZE", default_value = "0.1")]
    validation: String,
    /// Size of the test part, as `--validation`
    #[arg(long, value_name = "SIZE", default_value = "0.2")]
    test: String,
    /// Scale the targets by their training rows: standard, minmax or none; metrics are of the scaled values
    #[arg(long, value_name = "HOW", default_value = "none", value_parser = ["none", "standard", "minmax"])]
    scale: String,
    /// Metrics of the test part
    #[arg(long, value_name = "METRIC", value_delimiter = ',', default_value = "mae,mse")]
    metrics: Vec<String>,
    /// Steps between two forecasts of the test part (`h` unless given)
    #[arg(long, value_name = "STEPS", value_parser = positive)]
    step: Option<usize>,
    /// Rows of a season, for the baseline that repeats the last one
    #[arg(long, value_name = "ROWS", default_value_t = 24, value_parser = positive)]
    season: usize,
    /// Start of all random numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Ranks that share each training
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    ranks: u32,
    /// Print the pipeline file that does the same, and run nothing
    #[arg(long, action = ArgAction::SetTrue)]
    print_pipeline: bool,
    #[command(flatten)]
    how: run::How,
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "give a whole number of at least 1".to_owned())
}

/// Writes the pipeline into a fresh run directory and runs it.
pub fn main(args: &Args, printer: Printer) -> Exit {
    run_recipe(args, None, printer)
}

/// The same with a search in front of the training, `{ … }` as in a pipeline file.
pub fn run_recipe(args: &Args, search: Option<String>, printer: Printer) -> Exit {
    let recipe = match recipe(args, search) {
        Ok(recipe) => recipe,
        Err(Fault { message, hint }) => {
            printer.error(message, hint.as_deref());
            return Exit::Usage;
        }
    };
    match args.print_pipeline {
        true => {
            printer.data(recipe.toml().trim_end());
            Exit::Done
        }
        false => run::written(&recipe.name, &recipe.toml(), &args.how, printer),
    }
}

struct Fault {
    message: String,
    hint: Option<String>,
}

fn recipe(args: &Args, search: Option<String>) -> Result<Recipe, Fault> {
    let models = catalogue();
    let mut several_targets = true;
    for name in &args.models {
        if let Err(errors) = configure(name, &Map::new()) {
            return Err(Fault { message: errors[0].message.clone(), hint: errors[0].hint.clone() });
        }
        several_targets &= models.iter().any(|model| model.name == name && model.multivariate);
    }
    let columns = columns(&args.tables)?;
    let find = |given: &Option<String>, usual: &[&str]| {
        given.clone().or_else(|| columns.iter().find(|column| usual.contains(&column.to_lowercase().as_str())).cloned())
    };
    let time = find(&args.time, &["ds", "date", "time", "timestamp", "datetime"]).ok_or_else(|| Fault {
        message: format!("which column of {} holds the time stamps?", args.tables[0].display()),
        hint: Some(format!("name it with --time; there are {}", columns.join(", "))),
    })?;
    let targets = match args.targets.is_empty() {
        false => args.targets.clone(),
        true if columns.iter().any(|column| column == "y") => vec!["y".to_owned()],
        true => {
            let others: Vec<&str> = columns.iter().filter(|column| **column != time).map(String::as_str).collect();
            return Err(Fault {
                message: format!("{} has no column `y`: which one is to be forecast?", args.tables[0].display()),
                hint: Some(format!("name it with --target; there are {}", others.join(", "))),
            });
        }
    };
    Ok(Recipe {
        name: format!("{}-{}", if search.is_some() { "tune" } else { "train" }, args.models.join("-")),
        seed: args.seed,
        files: args.tables.iter().map(|file| std::path::absolute(file).unwrap_or_else(|_| file.clone())).collect(),
        unpivot: targets.len() > 1 && !several_targets,
        series: find(&args.series, &["unique_id"]),
        time,
        targets,
        exogenous: [args.hist.clone(), args.futr.clone(), args.stat.clone()],
        models: args.models.clone(),
        h: args.h,
        input_size: args.input_size.or_else(|| search.is_none().then_some(2 * args.h)),
        options: args.set.clone(),
        search,
        parts: Parts { validation: args.validation.clone(), test: args.test.clone() },
        scale: args.scale.clone(),
        metrics: args.metrics.clone(),
        step: args.step.unwrap_or(args.h),
        season: args.season,
        ranks: args.ranks,
    })
}

/// Names of the columns of the first file.
fn columns(files: &[PathBuf]) -> Result<Vec<String>, Fault> {
    let file = &files[0];
    let parquet = file.extension().is_some_and(|extension| extension == "parquet");
    let format = if parquet { Format::Parquet } else { Format::Csv };
    let schema = read_schema(&ReadArguments { files: vec![file.clone()], format, ..ReadArguments::default() });
    let schema = schema.map_err(|error| Fault { message: error.to_string(), hint: error.hint() })?;
    Ok(schema.fields().iter().map(|field| field.name().clone()).collect())
}
