//! The report as data: the schema `leakd.report/1`.
//!
//! `docs/REPORT.md` and `docs/report.schema.json` describe it for readers of
//! the JSON, and tests hold all three to each other. Fields may be added,
//! never renamed. Strings are as the machine gave them: a renderer that writes
//! to a terminal makes them safe.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bad_free::BadFree;
use super::kernel::{KernelSite, KernelTrace};
use super::memory::Memory;
use crate::verdict::exhaustion::OutOfMemory;
use crate::verdict::growth::Rate;
use crate::verdict::{Confidence, Verdict};

/// The name and version of the format.
pub const SCHEMA: &str = "leakd.report/1";

/// All that one trace found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// When the trace began, RFC 3339 in UTC.
    pub started: String,
    /// When it ended.
    pub ended: String,
    /// The machine's name.
    pub host: String,
    /// The kernel's release.
    pub kernel: String,
    /// Version of the leakd that wrote the report.
    pub leakd: String,
    /// Blocks younger than this (ns) count as outstanding, but rank nobody: as
    /// it was asked for. Each target says what was used.
    pub min_age_ns: u64,
    /// The processes under trace.
    pub targets: Vec<Target>,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// The process id.
    pub pid: u32,
    /// The process's name.
    pub comm: String,
    /// The path of its executable.
    pub exe: String,
    /// What became of it.
    pub ended: Ended,
    /// How often it replaced its program (exec) while it was under trace: what it held
    /// before is gone, and all that is said of blocks is of its last program, but
    /// `coverage` of all of them.
    #[serde(default)]
    pub execs: u32,
    /// How long it was under trace, in nanoseconds.
    pub duration_ns: u64,
    /// Blocks younger than this (ns) rank no site of this process: less than
    /// was asked for if it was not under trace for long enough.
    pub min_age_ns: u64,
    /// What was seen of it, and what was not.
    pub coverage: Coverage,
    /// What it holds.
    pub outstanding: Outstanding,
    /// All that it allocated and freed.
    pub heap: Heap,
    /// Where its resident memory goes; null if it was not running at the end of the
    /// trace.
    #[serde(default)]
    pub memory: Option<Memory>,
    /// When the memory that its control groups leave it will be used up, if it grows
    /// on as it did; null if it does not grow, has no limit, or has ended.
    #[serde(default)]
    pub out_of_memory: Option<OutOfMemory>,
    /// Frees that were wrong; null if it was not looked for them.
    #[serde(default)]
    pub bad_frees: Option<Vec<BadFree>>,
    /// The functions that were probed.
    pub probes: Vec<Probe>,
    /// What is held of its memory.
    #[serde(default)]
    pub verdict: Judged,
    /// The call sites with outstanding blocks, ranked.
    pub sites: Vec<Site>,
    /// Call sites that were left out of `sites`.
    pub omitted: Omitted,
    /// How the kernel was traced, where it is the target; processes lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<KernelTrace>,
}

/// What became of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    /// It was running when the trace ended.
    Running,
    /// It exited or was killed.
    Exited,
    /// It replaced its program: what it held before is gone, not leaked.
    Exec,
}

/// From when on allocations were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeenFrom {
    /// From the attach on: what is older is unknown.
    Attach,
    /// From the first instruction on.
    Start,
}

/// What was seen and what was not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// From when on allocations were seen.
    pub seen_from: SeenFrom,
    /// Calls that returned a block.
    pub allocations: u64,
    /// Calls that freed one, realloc included.
    pub frees: u64,
    /// Allocations that happened and are missing below, by cause.
    pub lost: BTreeMap<String, u64>,
    /// Their bytes.
    pub lost_bytes: u64,
    /// Mean bytes between two samples; 0: nothing was left out.
    pub sampled_bytes: u64,
    /// Allocations that sampling left out.
    pub sampled_out: u64,
    /// Frees of blocks that were not known: older than the attach, sampled
    /// out, or lost.
    pub unknown_frees: u64,
    /// Frees that could not be looked at (`--check-frees`): their stack could not be
    /// read, or the table of what was found was full.
    #[serde(default)]
    pub unchecked_frees: u64,
    /// Calls that returned no block.
    pub failed: u64,
    /// Blocks that two threads freed at the same time.
    pub double_frees: u64,
    /// Allocations that were counted, but under no call site of their own.
    pub unattributed: u64,
    /// How far the call stacks could be walked.
    pub stacks: Stacks,
    /// Where the others stopped, most frequent first.
    pub stopped: Vec<Stopped>,
    /// Files that have no unwind table.
    pub without_table: Vec<WithoutTable>,
    /// Functions that allocate and were left alone: what they hand out is missing.
    pub unprobed: Vec<Unprobed>,
    /// When probes were on.
    pub windows: Windows,
    /// Memory of leakd's tables for this target, in bytes.
    pub table_bytes: u64,
}

impl Coverage {
    /// Allocations that are missing, whatever the cause.
    pub fn lost_total(&self) -> u64 {
        self.lost.values().fold(0, |sum, value| sum.saturating_add(*value))
    }
}

/// Call stacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stacks {
    /// Walked.
    pub walked: u64,
    /// Of these, walked to the outermost frame.
    pub complete: u64,
}

/// Where walks stopped before the outermost frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// The file that the code of the last frame was mapped from; `[jit]` for
    /// code made at run time.
    pub module: Option<String>,
    /// Why.
    pub end: StackEnd,
    /// Stacks that stopped there.
    pub walked: u64,
}

/// A file that has no unwind table: stacks end in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithoutTable {
    /// Its path.
    pub module: String,
    /// Why.
    pub reason: String,
}

/// A function that allocates and was not probed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unprobed {
    /// Its symbol.
    pub symbol: String,
    /// The file it is in.
    pub module: String,
    /// Why.
    pub reason: String,
}

/// Spans of time in which probes were on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Windows {
    /// How many; 1 unless the governor closed some.
    pub count: u64,
    /// Their length together, in nanoseconds.
    pub open_ns: u64,
}

/// Blocks that were allocated and not freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outstanding {
    /// Bytes.
    pub bytes: u64,
    /// Blocks.
    pub blocks: u64,
    /// Whether both are extrapolated from samples.
    pub estimated: bool,
}

/// The whole heap, as valgrind sums it up; after an exec, that of the last program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heap {
    /// Blocks allocated.
    pub allocations: u64,
    /// Blocks freed, of whatever age.
    pub frees: u64,
    /// Bytes allocated.
    pub allocated_bytes: u64,
    /// Bytes in use at the end, of blocks whose allocation was seen.
    pub in_use_bytes: u64,
    /// Those blocks.
    pub in_use_blocks: u64,
}

/// One probed function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The function's symbol.
    pub symbol: String,
    /// The path of the file that it is in.
    pub module: String,
    /// What a hit costs.
    pub cost: ProbeCost,
}

/// How the kernel gets past a probed instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeCost {
    /// It emulates it: about half a microsecond.
    Emulated,
    /// It single-steps it: many microseconds in a virtual machine.
    SingleStepped,
}

/// One call site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Site {
    /// Hash of the stack, in hex; stable while the process runs.
    pub id: String,
    /// What is held of it.
    #[serde(default)]
    pub verdict: Judged,
    /// Bytes not freed yet.
    pub outstanding_bytes: u64,
    /// Blocks not freed yet.
    pub outstanding_blocks: u64,
    /// Bytes of those blocks that are at least the target's `min_age_ns` old.
    pub aged_bytes: u64,
    /// Those blocks.
    pub aged_blocks: u64,
    /// What sites are ranked by: `aged_bytes`, weighted.
    pub rank_bytes: u64,
    /// Age of the oldest outstanding block, in nanoseconds.
    pub oldest_age_ns: Option<u64>,
    /// Median age of the outstanding blocks, in nanoseconds.
    pub median_age_ns: Option<u64>,
    /// Share of all blocks allocated here that are outstanding, 0 to 1.
    pub surviving_share: f64,
    /// Share of the outstanding blocks that are older than 99 of 100 freed
    /// ones became, 0 to 1.
    pub overdue_share: Option<f64>,
    /// The share of blocks that are never freed, as far as was seen; null if it
    /// cannot be told.
    pub survival: Option<Survival>,
    /// Bytes allocated here.
    pub allocated_bytes: u64,
    /// Blocks allocated here.
    pub allocated_blocks: u64,
    /// Bytes of those that were freed.
    pub freed_bytes: u64,
    /// Blocks of those that were freed.
    pub freed_blocks: u64,
    /// Blocks allocated a second, on average.
    pub allocations_per_second: f64,
    /// Bytes a second by which outstanding memory grew, on average.
    pub growth_bytes_per_second: f64,
    /// Freed blocks by how long they lived; empty buckets are left out.
    pub lifetimes: Vec<Lifetime>,
    /// The call stack, innermost frame first.
    pub stack: Vec<Frame>,
    /// Why the walk stopped.
    pub stack_end: StackEnd,
    /// Frames that were found by the frame pointer for want of a table.
    pub frame_pointer_steps: u32,
    /// What only the kernel's call sites have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<KernelSite>,
}

/// What a call site's memory does, or a process's, and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The verdict.
    pub word: Verdict,
    /// How sure a leak is; null: it is none.
    pub confidence: Option<Confidence>,
    /// The reasons, in one line.
    pub evidence: String,
    /// By how much it grows; null: it does not, or that is not known.
    pub growth: Option<Rate>,
}

/// The share of blocks that outlive all that were freed: the Kaplan-Meier estimate
/// from the lifetimes of freed blocks and the ages of outstanding ones.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Survival {
    /// The share, 0 to 1 ...
    pub share: f64,
    /// ... with 95 % certainty at least ...
    pub low: f64,
    /// ... and at most.
    pub high: f64,
    /// No block was freed that was older than this (ns).
    pub settled_ns: u64,
}

/// One bucket of lifetimes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifetime {
    /// Blocks that lived shorter than this (ns), and no shorter than half of
    /// it; the first bucket also holds all shorter ones, the last has no end.
    pub below_ns: Option<u64>,
    /// Blocks freed.
    pub blocks: u64,
}

/// One level of a call stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The function, demangled.
    pub function: Option<String>,
    /// The source file.
    pub file: Option<String>,
    /// The line in it.
    pub line: Option<u32>,
    /// The file that the code was mapped from.
    pub module: Option<String>,
    /// Its build id, in hex.
    pub build_id: Option<String>,
    /// The return address in the process, in hex.
    pub address: String,
    /// Whether this function was inlined into the next frame's.
    pub inlined: bool,
    /// Bytes from the function's beginning to the address, or without a
    /// function, from the beginning of the module's file.
    pub offset: Option<u64>,
}

/// Why a stack ends where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StackEnd {
    /// At the outermost frame.
    Bottom,
    /// At a return address of zero, as thread start routines leave it.
    ZeroReturn,
    /// In no known mapping.
    NoMapping,
    /// In a mapping without an unwind table.
    NoTable,
    /// At an address that the table has no row for.
    NoRow,
    /// At a rule that the walker cannot follow.
    Unsupported,
    /// User memory could not be read.
    Unreadable,
    /// The rules led to no plausible frame.
    BadFrame,
    /// A fault of leakd.
    Internal,
    /// After as many frames as are kept.
    Depth,
    /// What was mapped changed at that moment, or several files were mapped there in
    /// turn: the frames may be wrong.
    Stale,
    /// The stack never reached user space.
    NotSeen,
    /// The table of call sites was full: this site stands for several.
    SiteTableFull,
}

impl StackEnd {
    /// Whether the whole stack is there.
    pub const fn complete(self) -> bool {
        matches!(self, Self::Bottom | Self::ZeroReturn)
    }
}

/// What was left out of a list of sites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Omitted {
    /// Call sites.
    pub sites: u64,
    /// Bytes that they hold.
    pub bytes: u64,
    /// Blocks that they hold.
    pub blocks: u64,
}
