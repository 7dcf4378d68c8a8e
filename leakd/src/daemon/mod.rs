//! The daemon.

mod args;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

pub use args::Arguments;

use crate::config;

/// Runs leakd.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let path = arguments.config.clone().unwrap_or_else(|| config::DEFAULT_PATH.into());
    let loaded = match config::load(&path, arguments.config.is_some()) {
        Ok(loaded) => loaded,
        Err(error) => return trouble(&error.to_string()),
    };
    if arguments.print_config {
        let text = config::print(&loaded.config);
        return match std::io::stdout().lock().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::from(2),
        };
    }
    trouble("this version has no service yet: use `leakctl attach PID`")
}

fn trouble(message: &str) -> ExitCode {
    eprintln!("leakd: {}", crate::terminal::safe(message));
    ExitCode::from(2)
}
