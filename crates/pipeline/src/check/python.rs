//! Asks a Python interpreter which packages it has.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Finding a package imports nothing, so 10 s is far more than even a cold network file system needs.
const DEADLINE: Duration = Duration::from_secs(10);

const QUESTION: &str = "import sys
from importlib.util import find_spec
for name in sys.argv[1:]:
    try:
        found = find_spec(name) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        print(name)";

/// Those of `packages` (names as after `import`) that the interpreter does not find.
///
/// # Errors
/// The interpreter cannot be started, fails, or does not answer in time.
pub(super) fn absent(interpreter: &Path, packages: &[&str]) -> Result<Vec<String>, String> {
    let mut child = Command::new(interpreter)
        .args(["-c", QUESTION])
        .args(packages)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut pipe = child.stdout.take().ok_or("it has no stdout")?;
    let (send, answer) = mpsc::channel();
    thread::spawn(move || {
        let mut text = String::new();
        // The receiver is gone only when the deadline has passed.
        let _ = send.send(pipe.read_to_string(&mut text).map(|_| text));
    });
    let answer = answer.recv_timeout(DEADLINE);
    if answer.is_err() {
        // Ends the reader as well; a process that is gone already is as good.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    match answer {
        Ok(Ok(text)) if status.success() => Ok(text.lines().map(str::to_owned).collect()),
        Ok(Ok(_)) => Err(format!("it ended with {status}")),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", DEADLINE.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_packages_are_named() {
        let found = super::super::machine::find(Path::new("python3"), Path::new(""));
        let Some(python) = found else { return };
        assert_eq!(absent(&python, &["json", "no_such_package_x", "no.such.x"]).unwrap(), ["no_such_package_x", "no.such.x"]);
        assert!(absent(Path::new("/bin/false"), &["json"]).is_err());
    }
}
