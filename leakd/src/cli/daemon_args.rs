//! Arguments of the commands that ask the daemon.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::args::OutputArguments;
use super::process_id::process_id;
use crate::duration;
use crate::protocol::{Change, SOCKET, Sort};

/// Where the daemon is.
#[derive(Debug, Args)]
pub struct DaemonArguments {
    /// The daemon's socket.
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    pub socket: PathBuf,
}

/// Arguments of `top`.
#[derive(Debug, Args)]
pub struct TopArguments {
    /// Watch and trace from here, as root; what is traced ends with it.
    #[arg(long)]
    pub no_daemon: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub daemon: DaemonArguments,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArguments {
    /// Write one JSON document instead of text.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub daemon: DaemonArguments,
}

/// Arguments of `targets`.
#[derive(Debug, Args)]
pub struct TargetsArguments {
    /// All processes that are watched.
    #[arg(long)]
    pub all: bool,
    /// The order.
    #[arg(long, value_name = "BY", value_enum, default_value_t = Order::Growth)]
    pub sort: Order,
    /// At most so many.
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Write one JSON document instead of text.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub daemon: DaemonArguments,
}

/// The order of a list of processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Order {
    Growth,
    Outstanding,
    Cost,
    Memory,
    Pid,
}

impl From<Order> for Sort {
    fn from(order: Order) -> Self {
        match order {
            Order::Growth => Self::Growth,
            Order::Outstanding => Self::Outstanding,
            Order::Cost => Self::Cost,
            Order::Memory => Self::Memory,
            Order::Pid => Self::Pid,
        }
    }
}

/// Arguments of `report`.
#[derive(Debug, Args)]
pub struct ReportArguments {
    /// Of this process; without it, of all that are or were under trace.
    #[arg(value_name = "PID", value_parser = process_id, conflicts_with_all = ["unit", "all", "kernel"])]
    pub pid: Option<u32>,
    /// Of the processes of this systemd unit.
    #[arg(long, value_name = "UNIT", conflicts_with_all = ["all", "kernel"])]
    pub unit: Option<String>,
    /// Of the kernel's own memory.
    #[arg(long, conflicts_with = "all")]
    pub kernel: bool,
    /// Of all that are or were under trace.
    #[arg(long)]
    pub all: bool,
    /// Blocks younger than this rank no call site. [default: as configured]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub min_age: Option<Duration>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputArguments,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub daemon: DaemonArguments,
}

/// Arguments of `watch`.
#[derive(Debug, Args)]
pub struct WatchArguments {
    /// Write a JSON document for each event.
    #[arg(long)]
    pub json: bool,
    /// Show what the governor does and when traces begin and end, too.
    #[arg(long)]
    pub verbose: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub daemon: DaemonArguments,
}

/// Arguments of `detach`.
#[derive(Debug, Args)]
pub struct DetachArguments {
    /// The process.
    #[arg(value_name = "PID", value_parser = process_id)]
    pub pid: u32,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub daemon: DaemonArguments,
}

/// Arguments of `set`.
#[derive(Debug, Args)]
pub struct SetArguments {
    /// What is traced: adaptive, targets, all or off.
    #[arg(long, value_name = "MODE")]
    pub mode: Option<String>,
    /// What tracing may cost a target, in percent of its CPU time.
    #[arg(long, value_name = "PERCENT")]
    pub budget: Option<f64>,
    /// What leakd may cost altogether, in percent of all CPUs.
    #[arg(long, value_name = "PERCENT")]
    pub machine_budget: Option<f64>,
    /// Processes that are traced at once.
    #[arg(long, value_name = "N")]
    pub max_targets: Option<usize>,
    /// error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub daemon: DaemonArguments,
}

impl SetArguments {
    /// As the daemon takes it.
    pub fn change(self) -> (Change, PathBuf) {
        let change = Change {
            mode: self.mode,
            budget_target_percent: self.budget,
            budget_machine_percent: self.machine_budget,
            max_targets: self.max_targets,
            log_level: self.log_level,
        };
        (change, self.daemon.socket)
    }
}
