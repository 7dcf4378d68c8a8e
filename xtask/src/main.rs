//! `cargo xtask`: sets up, builds, runs, tests and measures leakd.

mod command;
mod process;
mod toolchain;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sets up, builds, runs, tests and measures leakd.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Find or install what it takes to build BPF programs
    Setup,
    /// Build leakd and leakctl
    Build {
        /// Optimized, to target/release instead of target/debug
        #[arg(long)]
        release: bool,
    },
    /// Trace a small server with three leaks, or a process of your own
    Run {
        /// A process id, with options for `leakctl attach`; or arguments for
        /// leakctl; nothing: the example server
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run every test
    Test {
        /// Handed to each test program: names to choose, --nocapture, ...
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measure what tracing costs
    Bench {
        /// Handed to the benchmark
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Write man pages and completions from the definition of the command line
    Generate,
    /// Make a Debian package
    Package {
        /// Of programs that are not optimized: quicker, to try the package itself
        #[arg(long)]
        debug: bool,
    },
    /// Check format, warnings, dependencies and file sizes
    Lint,
    /// All that continuous integration runs: lint, then test
    Ci,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Setup => command::setup::run(),
        Command::Build { release } => command::build::run(release),
        Command::Run { arguments } => return finish(command::run::run(&arguments)),
        Command::Test { arguments } => command::test::run(&arguments),
        Command::Bench { arguments } => command::bench::run(&arguments),
        Command::Generate => command::generate::run(),
        Command::Package { debug } => command::package::run(!debug),
        Command::Lint => command::lint::run(),
        Command::Ci => command::lint::run().and_then(|()| command::test::run(&[])),
    };
    finish(result.map(|()| 0))
}

fn finish(result: anyhow::Result<u8>) -> ExitCode {
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
