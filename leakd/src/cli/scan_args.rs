//! Arguments of `scan`.

use std::time::Duration;

use clap::Args;

use super::args::{OutputArguments, TraceLimits};
use super::daemon_args::DaemonArguments;
use super::process_id::process_id;
use crate::duration;

/// Arguments of `scan`.
#[derive(Debug, Args)]
pub struct ScanArguments {
    /// The process.
    #[arg(value_name = "PID", value_parser = process_id)]
    pub pid: u32,
    /// Record its allocations for so long first, e.g. 30s, 5m; only these are
    /// judged. [default: 30s; 0 where the daemon has it under trace already]
    #[arg(long = "for", value_name = "TIME", value_parser = duration::parse)]
    pub length: Option<Duration>,
    /// Stop the process and look once, exactly, instead of many times while it
    /// runs.
    #[arg(long)]
    pub stop: bool,
    /// With --stop: let it go on after so long in any case, without a result.
    #[arg(
        long,
        value_name = "TIME",
        value_parser = duration::parse,
        default_value = "2s",
        requires = "stop"
    )]
    pub max_pause: Duration,
    /// Record from here, even where a daemon runs.
    #[arg(long)]
    pub no_daemon: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub daemon: DaemonArguments,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputArguments,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub limits: TraceLimits,
}

impl ScanArguments {
    /// How long to record, with its default.
    pub fn duration(&self) -> Duration {
        self.length.unwrap_or(Duration::from_secs(30))
    }

    /// For how long the process may be stopped; `None`: not at all.
    pub fn pause(&self) -> Option<Duration> {
        self.stop.then_some(self.max_pause)
    }
}
