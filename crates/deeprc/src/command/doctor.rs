//! `deeprc doctor`: what this machine has, what is missing, and how to get it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use deeprc_pilot::Resources;
use serde::Serialize;
use tokio::process::Command;

use crate::executables;
use crate::exit::Exit;
use crate::printer::{ERROR, GOOD, Printer, WAIT, columns, styled};

/// Longest answer of a program that is tried; `import torch` takes 2 to 20 s from a cold disk.
const PATIENCE: Duration = Duration::from_secs(60);
/// Tables of the demo need less than 1 MiB of shared memory; containers often have only 64 MiB.
const SHARED_MEMORY_MIB: u64 = 512;

/// Arguments of `deeprc doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON on stdout
    #[arg(long)]
    json: bool,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// There and works.
    Good,
    /// Absent, needed only by some pipelines.
    Absent,
    /// Needed, and missing or broken.
    Missing,
}

/// One line.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    found: String,
    hint: Option<String>,
}

impl Check {
    fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Good, found: found.into(), hint: None }
    }

    fn absent(name: &'static str, found: impl Into<String>, hint: &str) -> Self {
        Self { name, verdict: Verdict::Absent, found: found.into(), hint: Some(hint.into()) }
    }

    fn missing(name: &'static str, found: impl Into<String>, hint: &str) -> Self {
        Self { name, verdict: Verdict::Missing, found: found.into(), hint: Some(hint.into()) }
    }
}

/// Looks at everything; [`Exit::Resources`] if something is missing that every pipeline needs.
pub fn main(args: &Args, printer: Printer) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            printer.error(format_args!("cannot start: {error}"), Some("too many open files? `ulimit -n` shows the limit"));
            return Exit::Resources;
        }
    };
    let checks = runtime.block_on(look());
    match args.json {
        true => printer.json(&checks),
        false => print(&checks, printer),
    }
    match checks.iter().any(|check| check.verdict == Verdict::Missing) {
        true => Exit::Resources,
        false => Exit::Done,
    }
}

async fn look() -> Vec<Check> {
    let resources = Resources::detect();
    let python = executables::python();
    let (forecast, version, torch, gpu) = tokio::join!(forecast(), interpreter(&python), torch(&python), gpu(&resources));
    let mut checks = vec![cores(&resources), memory(&resources), gpu, shared_memory(), temporary(), forecast, version, torch];
    checks.extend(["mpirun", "srun", "ssh"].map(launcher));
    checks
}

fn print(checks: &[Check], printer: Printer) {
    let lines = columns(&checks.iter().map(|check| vec![check.name.to_string(), check.found.clone()]).collect::<Vec<_>>());
    for (check, line) in checks.iter().zip(lines) {
        let sign = match check.verdict {
            Verdict::Good => styled(GOOD, "✓"),
            Verdict::Absent => styled(WAIT, "–"),
            Verdict::Missing => styled(ERROR, "✗"),
        };
        printer.data(format_args!("{sign} {line}"));
        if let Some(hint) = &check.hint {
            printer.data(format_args!("  hint: {hint}"));
        }
    }
    let missing = checks.iter().filter(|check| check.verdict == Verdict::Missing).count();
    printer.talk(match missing {
        0 => "ready: `deeprc run pipelines/forecast.toml`".to_string(),
        n => format!("{n} of {} needs attention: see the lines with ✗", checks.len()),
    });
}

fn cores(resources: &Resources) -> Check {
    match resources.cores {
        1 => Check::absent("cores", "1", "stages of one rank run one after another; give the container or job more cores"),
        n => Check::good("cores", n.to_string()),
    }
}

fn memory(resources: &Resources) -> Check {
    let found = format!("{:.1} GiB free", resources.memory as f64 / 1024.0);
    match resources.memory < 1024 {
        true => Check::missing("memory", found, "the demo needs about 1 GiB: close programs or raise the limit of the container or job"),
        false => Check::good("memory", found),
    }
}

async fn gpu(resources: &Resources) -> Check {
    const HINT: &str = "not needed: everything runs on the CPU";
    match answer("nvidia-smi", &["--query-gpu=name,memory.total", "--format=csv,noheader"]).await {
        Ok(names) if !names.is_empty() => Check::good("GPU", names.replace('\n', "; ")),
        _ if resources.gpus > 0 => Check::absent(
            "GPU",
            format!("{} found, but nvidia-smi does not answer", resources.gpus / 100),
            "install or reload the NVIDIA driver",
        ),
        _ => Check::absent("GPU", "none", HINT),
    }
}

fn shared_memory() -> Check {
    const NAME: &str = "shared memory";
    let dir = Path::new("/dev/shm");
    let writable = rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_ok();
    let Ok(space) = rustix::fs::statvfs(dir) else {
        return Check::absent(NAME, "no /dev/shm", "ranks then meet in the run directory, which is slower; mount a tmpfs on /dev/shm");
    };
    let free = (space.f_bavail * space.f_frsize) >> 20;
    let found = format!("{free} MiB free in /dev/shm");
    match (writable, free < SHARED_MEMORY_MIB) {
        (false, _) => {
            Check::absent(NAME, "/dev/shm is not writable", "ranks then meet in the run directory, which is slower; `chmod 1777 /dev/shm`")
        }
        (true, true) => Check::absent(NAME, found, "large tables need more: start the container with `--shm-size=2g`"),
        (true, false) => Check::good(NAME, found),
    }
}

fn temporary() -> Check {
    let dir = std::env::temp_dir();
    match rustix::fs::access(&dir, rustix::fs::Access::WRITE_OK) {
        Ok(()) => Check::good("temporary files", dir.display().to_string()),
        Err(error) => {
            Check::missing("temporary files", format!("{}: {error}", dir.display()), "set TMPDIR to a directory that you may write")
        }
    }
}

async fn forecast() -> Check {
    const NAME: &str = "model executable";
    const HINT: &str = "`make setup build` makes it; DEEPRC_FORECAST names one elsewhere";
    let path = match executables::deeprc() {
        Ok(deeprc) => executables::forecast(&deeprc),
        Err(error) => return Check::missing(NAME, error.to_string(), HINT),
    };
    if !path.is_file() {
        return Check::missing(NAME, format!("{} is not there", path.display()), HINT);
    }
    match answer(&path.display().to_string(), &["--version"]).await {
        Ok(version) => Check::good(NAME, format!("{version} ({})", path.display())),
        Err(why) => {
            Check::missing(NAME, format!("{} does not start: {why}", path.display()), "`make setup` installs the libtorch that it needs")
        }
    }
}

async fn interpreter(python: &Path) -> Check {
    const NAME: &str = "python";
    match answer(&python.display().to_string(), &["-c", "import sys; print(sys.version.split()[0])"]).await {
        Ok(version) => Check::good(NAME, format!("{version} ({})", python.display())),
        Err(why) => Check::absent(
            NAME,
            format!("{}: {why}", python.display()),
            "only stages of kind `python` need it; DEEPRC_PYTHON names another one",
        ),
    }
}

async fn torch(python: &Path) -> Check {
    const NAME: &str = "python torch";
    match answer(&python.display().to_string(), &["-c", "import torch; print(torch.__version__)"]).await {
        Ok(version) => Check::good(NAME, version),
        Err(why) => Check::absent(NAME, why, "only your own PyTorch scripts need it: `pip install torch`, or `make setup-python` here"),
    }
}

fn launcher(name: &'static str) -> Check {
    match on_path(name) {
        Some(path) => Check::good(name, path.display().to_string()),
        None => Check::absent(name, "none", "not needed on one machine"),
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    let dirs = std::env::var_os("PATH")?;
    std::env::split_paths(&dirs).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// What a program prints, or its last line of complaint.
async fn answer(program: &str, arguments: &[&str]) -> Result<String, String> {
    let child = Command::new(program).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = match tokio::time::timeout(PATIENCE, child).await {
        Err(_) => return Err(format!("no answer within {} s", PATIENCE.as_secs())),
        Ok(Err(error)) => return Err(error.to_string()),
        Ok(Ok(output)) => output,
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_string();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => {
            let complaint = text(&output.stderr);
            Err(complaint.lines().next_back().map_or_else(|| output.status.to_string(), str::to_string))
        }
    }
}
