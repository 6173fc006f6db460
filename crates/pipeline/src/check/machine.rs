//! Does the machine have what the stages ask for: cores, programs, Python packages?

use std::path::{Path, PathBuf};

use deeprc_pilot::Resources;
use indexmap::IndexMap;

use super::python;
use crate::diagnostic::Exit;
use crate::options::RunOptions;
use crate::spec::{At, Faults, Kind, Pipeline, ProgramStage, Stage, did_you_mean};

pub(crate) fn check(pipeline: &Pipeline, options: &RunOptions, faults: &Faults) {
    let machine = available(options);
    let mut packages: IndexMap<PathBuf, Vec<(&Stage, &ProgramStage)>> = IndexMap::new();
    for stage in pipeline.stages.values() {
        fits(stage, &machine, faults);
        match &stage.kind {
            Kind::Program(program) => {
                if let Some(interpreter) = self::program(pipeline, program, options, faults) {
                    packages.entry(interpreter).or_default().push((stage, program));
                }
            }
            Kind::Train(_) | Kind::Predict(_) if !options.executables.forecast.is_file() => {
                let message =
                    format!("stage `{}` needs deeprc-forecast, and there is no {}", stage.name, options.executables.forecast.display());
                let hint = "build it with `make build`, or say where it is: DEEPRC_FORECAST=/path/to/deeprc-forecast".to_owned();
                faults.add(&stage.at, message, hint);
            }
            _ => {}
        }
    }
    for (interpreter, stages) in packages {
        self::packages(&interpreter, &stages, faults);
    }
}

/// What the run may use.
pub(crate) fn available(options: &RunOptions) -> Resources {
    let mut machine = Resources::detect();
    if let Some(cores) = options.cores {
        machine.cores = cores;
    }
    machine
}

fn fits(stage: &Stage, machine: &Resources, faults: &Faults) {
    let needs = &stage.needs;
    let ranks = u64::from(needs.ranks.value);
    let shown = if ranks == 1 { "1 rank".to_owned() } else { format!("{ranks} ranks") };
    let too_much = |at: &At, each: u64, has: u64, unit: &str, hint: String| {
        if each > 0 && ranks * each > has {
            let message = format!("stage `{}` needs {} {unit} ({shown} of {each}), there are {has}", stage.name, ranks * each);
            let mut fault = faults.source.fault(at, message, Some(hint));
            fault.exit = Exit::Resources;
            faults.push(fault);
        }
    };
    let cores = if needs.cores.value > 1 { &needs.cores.at } else { &needs.ranks.at };
    let fewer = format!(
        "set ranks and cores so that their product is at most {}, or run with --cores {} to share the real ones",
        machine.cores,
        ranks * u64::from(needs.cores.value)
    );
    too_much(cores, u64::from(needs.cores.value), u64::from(machine.cores), "cores", fewer);
    too_much(
        &needs.gpus.at,
        u64::from(needs.gpus.value),
        u64::from(machine.gpus),
        "hundredths of a GPU",
        "ask for a share such as gpus = 0.5, or for none".into(),
    );
    too_much(&needs.memory.at, needs.memory.value, machine.memory, "MiB of memory", "use fewer ranks or less memory for each".into());
}

/// Reports an absent program or script; returns the interpreter of a Python stage.
fn program(pipeline: &Pipeline, stage: &ProgramStage, options: &RunOptions, faults: &Faults) -> Option<PathBuf> {
    let base = pipeline.file().parent().unwrap_or(Path::new(""));
    if let Some(script) = &stage.script
        && !script.value.is_file()
    {
        let names: Vec<String> = script
            .value
            .parent()
            .and_then(|folder| std::fs::read_dir(if folder.as_os_str().is_empty() { Path::new(".") } else { folder }).ok())
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        let wanted = script.value.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        faults.add(&script.at, format!("no file {}", script.value.display()), did_you_mean(wanted, names.iter().map(String::as_str)));
    }
    let named = stage.program.as_ref();
    let wanted = named.map_or_else(|| options.executables.python.clone(), |program| PathBuf::from(&program.value));
    let found = find(&wanted, base);
    if found.is_none() {
        let at = named.map(|program| &program.at).or(stage.script.as_ref().map(|script| &script.at));
        let at = at.cloned().unwrap_or(At::File(0, 0));
        let hint =
            if stage.script.is_some() { "set `interpreter` to a Python ≥ 3.10" } else { "give its path, or put its directory on PATH" };
        faults.add(&at, format!("no program {}", wanted.display()), hint.to_owned());
    }
    found.filter(|_| stage.script.is_some())
}

/// A program as it will be started: with `/`, a path relative to the pipeline file; otherwise from the search path.
pub(crate) fn find(program: &Path, base: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return [base.join(program), program.to_owned()].into_iter().find(|path| path.is_file());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn packages(interpreter: &Path, stages: &[(&Stage, &ProgramStage)], faults: &Faults) {
    let wanted: Vec<&str> = stages.iter().flat_map(|(_, stage)| &stage.requires).map(|name| name.value.as_str()).collect();
    if wanted.is_empty() {
        return;
    }
    match python::absent(interpreter, &wanted) {
        Ok(absent) => {
            for (stage, program) in stages {
                for name in program.requires.iter().filter(|name| absent.contains(&name.value)) {
                    let message = format!(
                        "stage `{}` requires the Python package `{}`, which {} does not have",
                        stage.name,
                        name.value,
                        interpreter.display()
                    );
                    let hint = format!(
                        "`{} -m pip install {}`, or name another Python: `interpreter`, DEEPRC_PYTHON",
                        interpreter.display(),
                        name.value
                    );
                    faults.add(&name.at, message, hint);
                }
            }
        }
        Err(reason) => {
            let name = &stages[0].1.requires.first().or_else(|| stages.iter().find_map(|(_, stage)| stage.requires.first()));
            if let Some(name) = name {
                faults.add(&name.at, format!("cannot ask {} for its packages: {reason}", interpreter.display()), None);
            }
        }
    }
}
