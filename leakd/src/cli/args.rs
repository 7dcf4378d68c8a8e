//! What leakctl takes on its command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

pub use super::scan_args::ScanArguments;

use super::daemon_args::{
    DaemonArguments, DetachArguments, ReportArguments, SetArguments, StatusArguments,
    TargetsArguments, TopArguments, WatchArguments,
};
use super::kernel_args::KernelArguments;
use super::process_id::process_id;
use crate::allocator::CustomFunction;
use crate::duration;
use crate::engine::Settings;

/// Finds memory that programs take and never give back, and names the line.
#[derive(Debug, Parser)]
#[command(
    name = "leakctl",
    version,
    about,
    after_help = "Exit status: 0 nothing found, 1 leaks found, 2 trouble.\n\
                  Needs root. Nothing is left behind, however it ends.\n\
                  LEAKD_LOG=debug has it say what it does; LEAKD_LOG=leakd::bpf=debug,\n\
                  what its programs in the kernel do."
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch running processes for a while and report what they hold.
    ///
    /// Only what is allocated while it watches can be seen. Ctrl-C ends it
    /// early, with the report.
    #[command(after_help = "Examples:\n  \
        leakctl attach 1234\n  \
        leakctl attach $(pidof nginx) --for 2m --min-age 1m\n  \
        leakctl attach 1234 --json > report.json\n  \
        leakctl attach 1234 --alloc pool_get:size=2,ret --free pool_put:ptr=1")]
    Attach(AttachArguments),
    /// Run a command and report what it holds when it ends.
    ///
    /// The report goes to standard error, the command keeps its standard
    /// input and output; its exit status is passed on.
    #[command(after_help = "Examples:\n  \
        leakctl run -- ./server --once\n  \
        leakctl run --error-exitcode 99 -- make test\n  \
        leakctl run --json --output report.json -- ./server")]
    Run(RunArguments),
    /// Say which outstanding blocks of a process nothing can reach any more.
    ///
    /// Records its allocations for a while, then looks for pointers to them in all
    /// of its memory and registers, while it runs on. What nothing leads to is lost
    /// for certain, whatever its age.
    #[command(after_help = "Examples:\n  \
        leakctl scan 1234\n  \
        leakctl scan 1234 --for 5m --json > scan.json\n  \
        leakctl scan 1234 --stop --max-pause 500ms")]
    Scan(ScanArguments),
    /// Watch the kernel's own memory for a while and report who holds it.
    ///
    /// Every allocation of the machine passes the programs: expect a busy
    /// server to lose some of its throughput meanwhile. Only what is allocated
    /// while it watches can be seen. Ctrl-C ends it early, with the report.
    #[command(after_help = super::kernel_args::HELP)]
    Kernel(KernelArguments),
    /// Show all processes and what they hold, live, on the whole terminal.
    ///
    /// Enter goes to the call sites of a process, Enter again to the stack with
    /// file and line; `?` shows all keys.
    #[command(after_help = "Examples:\n  \
        leakctl top\n  \
        sudo leakctl top --no-daemon")]
    Top(TopArguments),
    /// Say what this kernel and machine can do, and try it on a child process.
    Doctor(DoctorArguments),
    /// Say what the daemon does and what it costs.
    Status(StatusArguments),
    /// List the processes that the daemon suspects or has traced.
    Targets(TargetsArguments),
    /// Show the call sites that the daemon has found.
    Report(ReportArguments),
    /// Show a line for each verdict of the daemon as it comes.
    Watch(WatchArguments),
    /// Have the daemon take its probes out of a process, and leave it alone.
    Detach(DetachArguments),
    /// Change a setting of the daemon until its next reload or restart.
    Set(SetArguments),
}

/// Where a report goes, and how much of it.
#[derive(Debug, Args)]
pub struct OutputArguments {
    /// Show at most this many call sites of each process.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub top: usize,
    /// Write one JSON document instead of text.
    #[arg(long)]
    pub json: bool,
    /// Write the report to this file.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Show every frame of each stack.
    #[arg(long)]
    pub all_frames: bool,
}

impl OutputArguments {
    /// Call sites of each process that are listed; `None`: all.
    pub fn sites(&self) -> Option<usize> {
        (!self.json).then_some(self.top)
    }
}

/// What is recorded of a process, and how much.
#[derive(Debug, Args)]
pub struct TraceLimits {
    /// An allocating function of your own, such as
    /// `pool_get:size=2,ret`, `make:size=1,count=2,ret` or `get:size=2,out=1`.
    /// No exception may leave it: under a return probe it ends the program.
    #[arg(long, value_name = "SPEC", value_parser = CustomFunction::parse_allocate)]
    pub alloc: Vec<CustomFunction>,
    /// The function that frees its blocks, such as `pool_put:ptr=1`.
    #[arg(long, value_name = "SPEC", value_parser = CustomFunction::parse_free)]
    pub free: Vec<CustomFunction>,
    /// Outstanding blocks to keep track of in each process; 100 bytes of
    /// kernel memory each.
    #[arg(
        long,
        value_name = "N",
        default_value_t = leakd_common::target::DEFAULT_BLOCKS,
        value_parser = clap::value_parser!(u32).range(1..=1 << 28)
    )]
    pub max_blocks: u32,
}

impl TraceLimits {
    /// Whether it asks for what the daemon's engine does not do for a client.
    pub fn are_special(&self) -> bool {
        !self.alloc.is_empty()
            || !self.free.is_empty()
            || self.max_blocks != leakd_common::target::DEFAULT_BLOCKS
    }

    /// The engine's settings.
    pub fn settings(&self) -> Settings {
        Settings {
            custom: self.alloc.iter().chain(&self.free).cloned().collect(),
            quota: self.max_blocks,
            method_limit: method_limit(),
            ..Settings::default()
        }
    }
}

/// What to trace, and how.
#[derive(Debug, Args)]
pub struct TraceArguments {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputArguments,
    /// Record about one allocation for each N bytes, to cost less; figures
    /// become estimates.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub sample_bytes: u64,
    /// Trace the processes that they make, too.
    #[arg(long)]
    pub follow_forks: bool,
    /// Look for blocks that are freed twice, and with `run` for frees of what
    /// was never allocated. The stack of each free is walked, too: it costs as
    /// much as that of each allocation.
    #[arg(long, conflicts_with = "sample_bytes")]
    pub check_frees: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub limits: TraceLimits,
}

impl TraceArguments {
    /// Whether it asks for what the daemon's engine does not do for a client.
    pub fn needs_own_engine(&self) -> bool {
        self.limits.are_special() || self.follow_forks || self.check_frees
    }

    /// The engine's settings.
    pub fn settings(&self) -> Settings {
        Settings {
            sample_bytes: self.sample_bytes,
            check_frees: self.check_frees,
            follow_forks: self.follow_forks,
            ..self.limits.settings()
        }
    }
}

/// `LEAKD_PROBES=multi|perf` does without what newer kernels have: for tests,
/// and for whoever suspects it.
fn method_limit() -> Option<crate::bpf::features::ProbeMethod> {
    use crate::bpf::features::ProbeMethod;
    match std::env::var("LEAKD_PROBES").ok()?.as_str() {
        "multi" => Some(ProbeMethod::Multi),
        "perf" => Some(ProbeMethod::Perf),
        _ => None,
    }
}

/// Arguments of `attach`.
#[derive(Debug, Args)]
pub struct AttachArguments {
    /// The processes.
    #[arg(required = true, value_name = "PID", value_parser = process_id)]
    pub pids: Vec<u32>,
    /// Watch for so long, e.g. 30s, 5m, 1h. [default: 30s; with --detach: on
    /// and on]
    #[arg(long = "for", value_name = "TIME", value_parser = duration::parse)]
    pub length: Option<Duration>,
    /// Blocks younger than this rank no call site: they may be in use.
    /// [default: 10s, or a third of --for if that is less]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub min_age: Option<Duration>,
    /// Have the daemon trace them, and do not wait: the trace goes on until
    /// `leakctl detach`, or for as long as --for says.
    #[arg(long, conflicts_with = "no_daemon")]
    pub detach: bool,
    /// Trace them from here, even where a daemon runs.
    #[arg(long)]
    pub no_daemon: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub daemon: DaemonArguments,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub trace: TraceArguments,
}

impl AttachArguments {
    /// How long to watch, with its default.
    pub fn duration(&self) -> Duration {
        self.length.unwrap_or(Duration::from_secs(30))
    }

    /// The minimum age, with its default.
    pub fn min_age(&self) -> Duration {
        self.min_age.unwrap_or_else(|| Duration::from_secs(10).min(self.duration() / 3))
    }
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub trace: TraceArguments,
    /// Exit with this status if blocks are outstanding when the command ends;
    /// 0: pass the command's own on.
    #[arg(long, value_name = "STATUS")]
    pub error_exitcode: Option<u8>,
    /// The command and its arguments.
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    pub command: Vec<OsString>,
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArguments {
    /// Trace these processes for a moment, too, and say how far their call
    /// stacks can be followed.
    #[arg(value_name = "PID", value_parser = process_id)]
    pub pids: Vec<u32>,
    /// For how long, e.g. 2s, 1m.
    #[arg(long = "for", value_name = "TIME", default_value = "2s", value_parser = duration::parse)]
    pub duration: Duration,
    /// Write one JSON document instead of text.
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Check that the definition of the arguments is consistent.
    #[test]
    fn definition() {
        Arguments::command().debug_assert();
    }

    /// Check that what follows the command belongs to it, dashes and all.
    #[test]
    fn trailing_arguments() {
        let parsed = Arguments::parse_from(["leakctl", "run", "--", "ls", "--json", "-l"]);
        let Command::Run(run) = parsed.command else { panic!("run") };
        assert_eq!(run.command, ["ls", "--json", "-l"]);
        assert!(!run.trace.output.json);
    }
}
