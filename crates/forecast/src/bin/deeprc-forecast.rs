//! The rank executable that links libtorch. `deeprc` starts it as `deeprc-forecast rank`; it serves one task after another.

use std::process::ExitCode;

use deeprc_forecast::{native, rank};

fn main() -> ExitCode {
    // Before anything else: the allocator's settings, and CUDA's kernels, which register themselves when loaded.
    native::tune_malloc();
    let cuda = native::load_cuda();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["rank"] => serve(),
        ["--version" | "-V"] => {
            println!("deeprc-forecast {} (libtorch 2.11.0, {})", env!("CARGO_PKG_VERSION"), device(cuda.is_ok()));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("usage: deeprc-forecast rank\n\nserves training and forecasting tasks; started by `deeprc`");
            ExitCode::from(2)
        }
    }
}

fn serve() -> ExitCode {
    rank::warm_up();
    match rank::registry().serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("deeprc-forecast: {error}");
            ExitCode::from(2)
        }
    }
}

fn device(cuda_loaded: bool) -> &'static str {
    if cuda_loaded && tch::Cuda::is_available() { "CUDA" } else { "CPU" }
}
