//! `cargo xtask`: sets up, builds, runs, tests and measures leakd.

mod command;
mod peers;
mod process;
mod toolchain;
mod vm;
mod workspace;

use std::process::ExitCode;
use std::time::Duration;

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
    /// Measure what tracing costs and finds, beside other tools
    Bench {
        /// Of programs that are not optimized, as tests have them: quicker to build;
        /// must come first
        #[arg(long)]
        debug: bool,
        /// Handed to the benchmark: overhead, accuracy, scale, scan, micro,
        /// verdicts; --quick, --json, --help
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run the tests, or a command, on other kernels in virtual machines
    ///
    /// The command runs as root in this machine's files, whose changes are kept
    /// in memory and lost at its end. The exit status is the command's; 124 if
    /// it took too long, 125 if the kernel panicked or gave no result.
    Vm {
        /// Kernels, as 6.1 or 7.2; none: all that there are
        #[arg(value_name = "KERNEL")]
        kernels: Vec<String>,
        /// For how long each kernel may take
        #[arg(long, value_name = "SECONDS", default_value_t = VM_LIMIT.as_secs())]
        timeout: u64,
        /// For how long all kernels together may take; what is not done then is
        /// said, and the status is 124 if nothing failed
        #[arg(long, value_name = "SECONDS")]
        within: Option<u64>,
        /// Builds the kernel module of the tests for the command, which finds it
        /// by the variable LEAKD_TEST_MODULE
        #[arg(long)]
        module: bool,
        /// A command with its arguments, or a script in one word; none: the tests
        #[arg(last = true, value_name = "COMMAND")]
        command: Vec<String>,
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
    /// All that continuous integration runs: lint, test
    Ci,
}

/// For how long a virtual machine may run.
const VM_LIMIT: Duration = Duration::from_secs(1800);

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Setup => command::setup::run(),
        Command::Build { release } => command::build::run(release),
        Command::Run { arguments } => return finish(command::run::run(&arguments)),
        Command::Test { arguments } => command::test::run(&arguments),
        Command::Bench { debug, arguments } => {
            return finish(command::bench::run(!debug, &arguments));
        }
        Command::Vm { kernels, timeout, within, module, command } => {
            let options = vm::Options {
                limit: Duration::from_secs(timeout),
                within: within.map(Duration::from_secs),
                with_module: module,
            };
            return finish(vm::run(&kernels, &command, options));
        }
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
