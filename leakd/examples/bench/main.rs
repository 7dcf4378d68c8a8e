//! What tracing costs and what it finds, leakd beside other tools: `cargo xtask
//! bench`.
//!
//! docs/BENCHMARKS.md says what each figure means. This is a benchmark and not
//! a test: that a goal is missed is printed, but is no failure.
#![allow(clippy::print_stdout, reason = "it prints its result")]

mod accuracy;
mod arguments;
mod child;
mod compiled;
mod goals;
mod interrupt;
mod machine;
mod micro;
mod model;
mod overhead;
mod regression;
mod render;
mod reports;
mod run;
mod scale;
mod scan;
mod scratch;
mod session;
mod statistics;
mod tracer;
mod workload;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use arguments::{Arguments, Command};
use scratch::Scratch;

/// Something has grown beyond what is allowed.
const GREW: u8 = 1;
/// It could not be measured.
const TROUBLE: u8 = 2;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(GREW),
        Err(error) => {
            interrupt::wait_if_interrupted();
            eprintln!("error: {error:#}");
            ExitCode::from(TROUBLE)
        }
    }
}

/// Says whether all that must not grow has not.
fn run(arguments: &Arguments) -> Result<bool> {
    if let Some(Command::Render { files }) = &arguments.command {
        return run::render(arguments, files).map(|()| true);
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let _entered = runtime.enter();
    leakd::preflight::Facts::gather().check()?;
    tracer::kernel_memory::clean();
    let _scratch = Scratch::make()?;
    interrupt::watch()?;
    match &arguments.command {
        Some(Command::Micro) => {
            micro::run(&arguments.only, arguments.rounds, arguments.json).map(|()| true)
        }
        _ => run::measure(arguments),
    }
}
