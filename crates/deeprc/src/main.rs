//! The `deeprc` program; everything is in the library.

fn main() -> std::process::ExitCode {
    deeprc::main()
}
