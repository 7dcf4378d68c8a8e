//! leakctl's command line: arguments, commands, exit statuses.
//!
//! Reports go to standard output, all else to standard error.

#![allow(clippy::print_stderr, reason = "it speaks to people")]

mod args;
mod ask;
mod attach;
mod daemon_args;
mod doctor;
mod doctor_kernel;
mod doctor_stacks;
mod kernel;
mod kernel_args;
mod kernel_beside;
mod kernel_through_daemon;
mod process_id;
mod progress;
mod run;
mod scan;
mod scan_args;
mod scan_through_daemon;
mod show;
mod through_daemon;
mod top;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;

use crate::canary::{self, CanaryReport};
use crate::engine::{Engine, Settings};
use crate::preflight::Facts;
use crate::terminal::Style;

pub use args::{Arguments, Command};

/// Exit statuses, for people and scripts.
pub mod status {
    /// Nothing was found.
    pub const CLEAN: u8 = 0;
    /// Memory was found that was not given back.
    pub const LEAKS: u8 = 1;
    /// It could not be found out.
    pub const TROUBLE: u8 = 2;
}

/// Runs leakctl.
pub fn main() -> ExitCode {
    // The canary's child: before anything is set up, since it must not allocate.
    if std::env::args_os().nth(1).is_some_and(|word| word == canary::child::COMMAND) {
        return ExitCode::from(canary::child::run() as u8);
    }
    let arguments = Arguments::parse();
    // A warning in the middle of a screen helps nobody.
    if !matches!(arguments.command, Command::Top(_)) || !std::io::stderr().is_terminal() {
        set_up_log();
    }
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return trouble(&format!("cannot start: {error}")),
        };
    let result = runtime.block_on(async {
        match arguments.command {
            Command::Attach(arguments) => attach::attach(arguments).await,
            Command::Run(arguments) => run::run(arguments).await,
            Command::Scan(arguments) => scan::scan(arguments).await,
            Command::Doctor(arguments) => doctor::doctor(&arguments).await,
            Command::Kernel(arguments) => kernel::kernel(arguments).await,
            Command::Top(arguments) => top::top(arguments).await,
            Command::Status(arguments) => ask::status(&arguments),
            Command::Targets(arguments) => ask::targets(&arguments),
            Command::Report(arguments) => ask::report(&arguments),
            Command::Watch(arguments) => ask::watch(&arguments),
            Command::Detach(arguments) => ask::detach(&arguments),
            Command::Set(arguments) => ask::set(arguments),
        }
    });
    // A symbolizer that hangs in a hostile file must not hold us back.
    runtime.shutdown_background();
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => trouble(&one_line(&error)),
    }
}

/// An error and its causes, as far as they are not told by it already.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(|cause| cause.to_string()) {
        if !line.contains(&cause) {
            if !line.is_empty() {
                line.push_str(": ");
            }
            line.push_str(&cause);
        }
    }
    line
}

fn trouble(message: &str) -> ExitCode {
    eprintln!("leakctl: {}", crate::terminal::safe(message));
    ExitCode::from(status::TROUBLE)
}

/// Warnings to standard error; `LEAKD_LOG=debug` for more.
fn set_up_log() {
    use tracing_subscriber::EnvFilter;
    let filter =
        EnvFilter::try_from_env("LEAKD_LOG").unwrap_or_else(|_| EnvFilter::new("error,leakd=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(Style::of(&std::io::stderr()).coloured())
        .with_target(false)
        .without_time()
        .init();
}

/// Looks at the machine, starts the engine and sends the canary ahead.
fn start_engine(settings: Settings) -> anyhow::Result<(Engine, CanaryReport)> {
    Facts::gather().check()?;
    let mut engine = Engine::start(settings)?;
    let canary = canary::check(&mut engine)?;
    Ok((engine, canary))
}
