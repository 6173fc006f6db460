//! Ctrl-C and SIGTERM: the first one cancels and lets the state be saved, the second one kills.

use tokio::signal::unix::{SignalKind, signal};

use crate::exit::Exit;
use crate::printer::Printer;

/// Watches from now on; `cancel` is called at the first signal.
///
/// At the second one the process exits at once. Agents and ranks ask the kernel to die with their parent, so nothing is left.
pub fn watch(printer: Printer, cancel: impl Fn() + Send + 'static) {
    let (ready, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else { return };
        runtime.block_on(async {
            let both = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
            let (Ok(mut interrupt), Ok(mut terminate)) = both else { return };
            let _ = ready.send(());
            for times in 0.. {
                tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
                if times > 0 {
                    std::process::exit(Exit::Interrupted.code().into());
                }
                printer.talk("stopping: tasks are canceled, what is finished is kept; Ctrl-C again kills");
                cancel();
            }
        });
    });
    // Without handlers (no file descriptors left) the signals keep their default action: the sender is dropped and we go on.
    let _ = wait.recv();
}
