//! `deeprc models`: the models and their options, from the same declarations that read them.

use deeprc_forecast::config::{ModelEntry, OptionEntry, catalogue};

use crate::exit::Exit;
use crate::printer::{BOLD, Printer, SOFT, columns, styled};

/// Arguments of `deeprc models`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show every option of this model
    name: Option<String>,
    /// Print JSON on stdout
    #[arg(long)]
    json: bool,
}

/// Prints all models, or one with its options.
pub fn main(args: &Args, printer: Printer) -> Exit {
    let models = catalogue();
    let Some(name) = &args.name else {
        match args.json {
            true => printer.json(&models),
            false => list(&models, printer),
        }
        return Exit::Done;
    };
    let Some(model) = models.iter().find(|model| model.name.eq_ignore_ascii_case(name)) else {
        let names: Vec<&str> = models.iter().map(|model| model.name).collect();
        printer.error(format_args!("unknown model `{name}`"), Some(&format!("there are {}", names.join(", "))));
        return Exit::Usage;
    };
    match args.json {
        true => printer.json(model),
        false => describe(model, printer),
    }
    Exit::Done
}

fn list(models: &[ModelEntry], printer: Printer) {
    let rows: Vec<Vec<String>> = models.iter().map(|model| vec![model.name.into(), model.summary.into()]).collect();
    columns(&rows).iter().for_each(|line| printer.data(line));
    printer.talk(styled(SOFT, "`deeprc models NAME` shows every option of a model"));
}

fn describe(model: &ModelEntry, printer: Printer) {
    printer.data(format_args!("{}: {}", styled(BOLD, model.name), model.summary));
    let exogenous = match model.exogenous {
        [] => "no exogenous columns".to_string(),
        kinds => format!("exogenous columns: {}", kinds.join(", ")),
    };
    printer.data(format_args!("{exogenous}; {}", if model.multivariate { "several targets at once" } else { "one target" }));
    for group in ["model", "training"] {
        let options: Vec<&OptionEntry> = model.options.iter().filter(|option| option.group == group).collect();
        if options.is_empty() {
            continue;
        }
        printer.data(format_args!("\n{}", styled(BOLD, format_args!("Options of the {group}"))));
        let row = |option: &&OptionEntry| {
            vec![format!("  {}", option.name), option.kind.to_string(), option.default.to_string(), option.doc.clone()]
        };
        columns(&options.iter().map(row).collect::<Vec<_>>()).iter().for_each(|line| printer.data(line));
    }
}
