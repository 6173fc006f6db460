//! A panic is a bug of deeprc: it says so, asks for a report and has its own exit code.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::exit::Exit;
use crate::printer::Printer;

static PANICKED: AtomicBool = AtomicBool::new(false);

/// Runs `body`; [`Exit::Bug`] if it, or a thread that it started, panicked.
pub fn guard(printer: Printer, body: impl FnOnce() -> Exit) -> Exit {
    panic::set_hook(Box::new(move |panic| {
        // One message is enough: what panics afterwards is a consequence.
        if PANICKED.swap(true, Ordering::SeqCst) {
            return;
        }
        printer.error(format_args!("this is a bug in deeprc {}: {panic}", env!("CARGO_PKG_VERSION")), None);
        printer.hint("please report it with the command line, the pipeline file and the message above; what was finished is kept");
    }));
    let exit = panic::catch_unwind(AssertUnwindSafe(body)).unwrap_or(Exit::Bug);
    if PANICKED.load(Ordering::SeqCst) { Exit::Bug } else { exit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_exit_code_4() {
        let exit = guard(Printer, || panic!("index out of bounds"));
        let _ = panic::take_hook();
        assert_eq!(exit, Exit::Bug);
    }
}
