//! A process as clients see it.

use serde::{Deserialize, Serialize};

use super::Verdict;
use crate::verdict::Confidence;
use crate::verdict::exhaustion::OutOfMemory;

/// A point of a time series: seconds before now, bytes.
pub type Point = (f64, u64);

/// One process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessView {
    /// Its number, in leakd's pid namespace.
    pub pid: u32,
    /// When it started, in clock ticks since boot: with `pid`, who it is.
    pub start_time: u64,
    /// Its name.
    pub comm: String,
    /// The path of its program.
    pub exe: String,
    /// Its user (real uid).
    pub uid: u32,
    /// Its control group (v2, or that of systemd).
    pub cgroup: String,
    /// Its systemd unit.
    pub unit: Option<String>,
    /// Its container's id.
    pub container: Option<String>,
    /// How long it has been running, in milliseconds.
    pub age_ms: u64,
    /// Whether it runs still.
    pub running: bool,
    /// What is done with it.
    pub stage: Stage,
    /// What is held of it.
    pub verdict: Verdict,
    /// Resident anonymous memory, in bytes.
    pub anonymous_bytes: u64,
    /// All resident memory, in bytes.
    pub resident_bytes: u64,
    /// Of it in swap, in bytes.
    pub swap_bytes: u64,
    /// Private writable mappings (VmData), resident or not, in bytes.
    pub data_bytes: u64,
    /// The heap that brk(2) made, in bytes; of suspects only.
    pub heap_bytes: Option<u64>,
    /// Its share of resident memory (PSS), in bytes; of suspects only.
    pub proportional_bytes: Option<u64>,
    /// Threads.
    pub threads: u32,
    /// Open descriptors, where the kernel tells at once (6.2).
    pub descriptors: Option<u64>,
    /// How its anonymous memory grows.
    pub growth: Growth,
    /// When the memory that its control groups leave it will be used up, if it grows
    /// on; of those that grow and are limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_of_memory: Option<OutOfMemory>,
    /// The trace that goes on, or the last one.
    pub trace: Option<TraceView>,
    /// Anonymous memory and swap together over time, oldest first; if
    /// `series` was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub series: Vec<Point>,
}

impl ProcessView {
    /// Anonymous memory, resident or in swap: what the process took, in bytes.
    pub fn taken_bytes(&self) -> u64 {
        self.anonymous_bytes.saturating_add(self.swap_bytes)
    }

    /// Bytes outstanding in its trace; 0 without one.
    pub fn outstanding_bytes(&self) -> u64 {
        self.trace.as_ref().map_or(0, |trace| trace.outstanding_bytes)
    }

    /// What tracing costs it, in percent of its CPU time; `None`: it is not under
    /// trace.
    pub fn cost_percent(&self) -> Option<f64> {
        let trace = self.trace.as_ref().filter(|trace| trace.active)?;
        Some(trace.governor.cost_percent)
    }
}

/// What is done with a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Its figures are read.
    #[default]
    Watched,
    /// It grows, and waits for its trace.
    Suspect,
    /// It is under trace.
    Traced,
    /// It was traced; the next trace may come later.
    Resting,
    /// It grows, but cannot be traced; `trace.error` says why.
    Untraceable,
    /// The configuration, or somebody, says to leave it alone.
    Excluded,
}

/// The growth of a series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Growth {
    /// Bytes a second (Theil-Sen), over the span.
    pub bytes_per_second: f64,
    /// The span that was looked at, in milliseconds.
    pub span_ms: u64,
    /// How sure it is that there is a trend: the Mann-Kendall test's Z.
    pub z: f64,
}

/// A trace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TraceView {
    /// It goes on.
    pub active: bool,
    /// Somebody asked for it.
    pub by_hand: bool,
    /// When it began, RFC 3339 in UTC.
    pub started: String,
    /// How long it lasted so far, in milliseconds.
    pub duration_ms: u64,
    /// Of the kernel: what of its memory is traced, in some words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Bytes outstanding, of those allocated since it began.
    pub outstanding_bytes: u64,
    /// Blocks outstanding.
    pub outstanding_blocks: u64,
    /// Both are extrapolated from samples.
    pub estimated: bool,
    /// Allocations that were seen.
    pub allocations: u64,
    /// Frees that were seen.
    pub frees: u64,
    /// Allocations that were lost, whatever the cause.
    pub lost: u64,
    /// Call sites.
    pub sites: u64,
    /// Memory of its tables, in bytes.
    pub table_bytes: u64,
    /// What it costs and what is done about that.
    pub governor: GovernorStep,
    /// What speaks for a leak so far.
    pub evidence: Option<Evidence>,
    /// Why it could not be traced, or not go on.
    pub error: Option<String>,
    /// Outstanding bytes over time, oldest first; if `series` was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub series: Vec<Point>,
}

/// The pid that stands for the kernel's own memory.
pub const KERNEL_PID: u32 = 0;

/// The governor and one target. Of the kernel, percents are of all CPUs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GovernorStep {
    /// `full`, `sampled`, `windows` or `detached`.
    pub step: String,
    /// What tracing costs it, in percent of its CPU time; the last control
    /// period, measured.
    pub cost_percent: f64,
    /// What it may cost.
    pub budget_percent: f64,
    /// Probes fired, a second.
    pub traps_per_second: f64,
    /// Mean bytes between samples; 0: none.
    pub sample_bytes: u64,
    /// Windows so far: 1 unless the governor closed some.
    pub windows: u64,
    /// The part of the time that probes are in, in percent.
    pub open_percent: f64,
    /// Whether probes are in now.
    pub open: bool,
}

/// Why a process is held to grow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// How long call sites were looked at, in milliseconds.
    pub span_ms: u64,
    /// Those that hold more and more, leaks first, then most growth first; at most 10.
    pub sites: Vec<EvidenceSite>,
}

/// A call site that holds more and more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EvidenceSite {
    /// Its id, as in the report.
    pub id: String,
    /// The frame to look at first: function, file and line, as far as known.
    pub place: String,
    /// Bytes outstanding.
    pub outstanding_bytes: u64,
    /// Blocks outstanding.
    pub outstanding_blocks: u64,
    /// Their growth.
    pub bytes_per_second: f64,
    /// Share of its blocks that were not freed, 0 to 1.
    pub surviving_share: f64,
    /// `leak` or `growing`.
    #[serde(default)]
    pub verdict: Verdict,
    /// How sure a leak is.
    #[serde(default)]
    pub confidence: Option<Confidence>,
    /// The reasons, in one line; empty where it only grows.
    #[serde(default)]
    pub evidence: String,
}
