//! `deeprc rank` (hidden): a warm rank that serves the table-side stage functions.

use deeprc_pilot::rank::Registry;

use crate::exit::Exit;
use crate::printer::Printer;

/// Serves until the agent is gone.
pub fn main(printer: Printer) -> Exit {
    let mut registry = Registry::new();
    deeprc_pipeline::functions::register(&mut registry);
    match registry.serve() {
        Ok(()) => Exit::Done,
        Err(error) => {
            printer.error(&error, error.hint());
            Exit::Usage
        }
    }
}
