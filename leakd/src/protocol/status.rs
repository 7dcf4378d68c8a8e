//! The daemon's own state.

use serde::{Deserialize, Serialize};

use super::Growth;

/// The answer to `status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of leakd.
    pub leakd: String,
    /// The machine's name.
    pub host: String,
    /// The kernel's release.
    pub kernel: String,
    /// CPUs that are online.
    pub cpus: u32,
    /// When the daemon started, RFC 3339 in UTC.
    pub started: String,
    /// How long it has been running, in milliseconds.
    pub uptime_ms: u64,
    /// How old the figures below are, in milliseconds: a second at most, or for
    /// as long as the daemon has been at one thing.
    pub age_ms: u64,
    /// `adaptive`, `targets`, `all` or `off`.
    pub mode: String,
    /// What it costs itself.
    pub own: OwnView,
    /// The watch.
    pub watch: WatchView,
    /// The kernel's own memory. A daemon that is older than this says nothing.
    #[serde(default)]
    pub kernel_memory: KernelMemoryView,
    /// How the kernel's own memory is traced.
    #[serde(default)]
    pub kernel_tracing: KernelTracingView,
    /// Tracing.
    pub tracing: TracingView,
    /// The governor.
    pub governor: GovernorView,
    /// The configuration.
    pub config: ConfigView,
    /// Clients that are connected.
    pub clients: usize,
}

/// The daemon as a process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OwnView {
    /// Its pid.
    pub pid: u32,
    /// Its resident memory, in bytes.
    pub resident_bytes: u64,
    /// Its CPU time since the start, in milliseconds.
    pub cpu_ms: u64,
    /// Its open descriptors.
    pub descriptors: u64,
}

/// The watch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WatchView {
    /// Processes that are watched.
    pub processes: usize,
    /// Of these, suspects.
    pub suspects: usize,
    /// Passes so far.
    pub passes: u64,
    /// Between two passes, in milliseconds.
    pub interval_ms: u64,
    /// CPU time of the last pass, in microseconds.
    pub pass_us: u64,
    /// Processes that there was no room to watch.
    pub left_out: u64,
}

/// The kernel's own memory; `None`: this kernel does not say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KernelMemoryView {
    /// Slab that is not taken back when memory is short (`SUnreclaim`), in bytes.
    pub slab_unreclaimable_bytes: Option<u64>,
    /// What is taken back then (`KReclaimable`), in bytes.
    pub reclaimable_bytes: Option<u64>,
    /// Memory that each CPU has a part of (`Percpu`), in bytes.
    pub per_cpu_bytes: Option<u64>,
    /// Mapped by vmalloc (`VmallocUsed`), in bytes.
    pub vmalloc_bytes: Option<u64>,
    /// Page tables of processes (`PageTables`), in bytes.
    pub page_table_bytes: Option<u64>,
    /// Stacks of tasks (`KernelStack`), in bytes.
    pub stack_bytes: Option<u64>,
    /// Slab caches that are watched: those of 256 KiB and more.
    pub caches: usize,
    /// Caches that there was no room to watch.
    pub caches_left_out: usize,
    /// Why no caches are watched.
    pub caches_error: Option<String>,
    /// What grows steadily, the fastest first.
    pub growing: Vec<KernelGrowth>,
}

impl KernelMemoryView {
    /// What grows and is not taken back when memory is short.
    pub fn suspects(&self) -> impl Iterator<Item = &KernelGrowth> {
        self.growing.iter().filter(|one| !one.reclaimable)
    }
}

/// A part of the kernel's memory that grows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KernelGrowth {
    /// A slab cache, or a total of /proc/meminfo.
    pub name: String,
    /// Which of both: `cache` or `total`.
    pub kind: String,
    /// Whether it is taken back when memory is short: growth alone is no leak.
    pub reclaimable: bool,
    /// What it takes, in bytes.
    pub bytes: u64,
    /// How it grows.
    pub growth: Growth,
}

/// How the kernel's own memory is traced.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KernelTracingView {
    /// `adaptive` or `off`.
    pub mode: String,
    /// What of it is under trace, in some words; `None`: nothing.
    pub scope: Option<String>,
    /// Why it could not be traced, or not go on, when that was tried last.
    pub error: Option<String>,
    /// What tracing it may cost, in percent of all CPUs.
    pub budget_percent: f64,
    /// What it costs, in percent of all CPUs; the last control period, measured.
    pub cost_percent: f64,
    /// The governor's step: `full` or `windows`; `None`: nothing is traced.
    pub step: Option<String>,
}

/// Tracing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TracingView {
    /// Whether anything can be traced.
    pub available: bool,
    /// Why not.
    pub error: Option<String>,
    /// How probes are attached: `session`, `multi` or `perf`.
    pub method: Option<String>,
    /// The canary: a pair of malloc and free without probes, in nanoseconds.
    pub bare_pair_ns: Option<f64>,
    /// The same under trace.
    pub traced_pair_ns: Option<f64>,
    /// A trap alone, in nanoseconds, where the kernel emulates the probed
    /// instruction ...
    pub emulated_trap_ns: Option<f64>,
    /// ... and where it single-steps it.
    pub single_stepped_trap_ns: Option<f64>,
    /// Targets under trace.
    pub targets: usize,
    /// Targets that may be under trace at once.
    pub max_targets: usize,
    /// Allocations of current targets that were lost.
    pub lost: u64,
}

/// The governor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GovernorView {
    /// What a target may cost, in percent of its CPU time.
    pub budget_target_percent: f64,
    /// What all may cost, in percent of all CPUs.
    pub budget_machine_percent: f64,
    /// What all cost, in percent of all CPUs; the last control period,
    /// measured; leakd's own CPU time included.
    pub cost_machine_percent: f64,
    /// Steps down since the start (less is recorded).
    pub steps_down: u64,
    /// Steps up.
    pub steps_up: u64,
}

/// The configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConfigView {
    /// The files that were read, in order.
    pub files: Vec<String>,
    /// Why the last reload was refused.
    pub error: Option<String>,
    /// Settings that `set` changed.
    pub changed: Vec<String>,
}
