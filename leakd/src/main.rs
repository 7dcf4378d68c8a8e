//! leakd, the daemon: not there yet. What it will run is leakctl's engine.

#![allow(clippy::print_stdout)] // its version

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|word| word == "--version") {
        println!("leakd {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    eprintln!("leakd: this version has no service yet: use `leakctl attach PID`");
    ExitCode::from(2)
}
