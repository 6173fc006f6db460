//! Where the programs are that a run starts.

use std::path::{Path, PathBuf};

/// Name of the rank executable that links libtorch.
pub const FORECAST: &str = "deeprc-forecast";
/// Environment variable that names it where it is not beside `deeprc`.
pub const FORECAST_VARIABLE: &str = "DEEPRC_FORECAST";

/// This executable, which is also agent and table rank.
pub fn deeprc() -> std::io::Result<PathBuf> {
    std::env::current_exe()
}

/// `$DEEPRC_FORECAST`, or `deeprc-forecast` beside `deeprc`; it need not exist.
pub fn forecast(deeprc: &Path) -> PathBuf {
    match std::env::var_os(FORECAST_VARIABLE) {
        Some(path) if !path.is_empty() => PathBuf::from(path),
        _ => deeprc.with_file_name(FORECAST),
    }
}

/// The user's Python: `$DEEPRC_PYTHON`, the active virtual environment, `.venv` here, else `python3`.
pub fn python() -> PathBuf {
    if let Some(path) = std::env::var_os("DEEPRC_PYTHON").filter(|path| !path.is_empty()) {
        return PathBuf::from(path);
    }
    let active = std::env::var_os("VIRTUAL_ENV").map(PathBuf::from);
    let local = std::env::current_dir().ok().map(|dir| dir.join(".venv"));
    let candidates = [active, local].into_iter().flatten().map(|dir| dir.join("bin/python3"));
    candidates.into_iter().find(|path| path.is_file()).unwrap_or_else(|| PathBuf::from("python3"))
}
