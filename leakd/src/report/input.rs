//! What the engine hands over at the end of a trace, or in the middle of it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use leakd_common::bad_free::BadFree;
use leakd_common::event::StackEnd;
use leakd_common::site::Site;
use leakd_common::target::TargetCounters;

use super::kernel::{KernelSite, KernelTrace};
use super::memory::Memory;
use super::model::{Ended, Probe, SeenFrom, Unprobed, Windows};
use crate::symbol::Frame;
use crate::verdict::births::Births;
use crate::verdict::growth::Growth;
use crate::watch::limit::Limit;

/// One look at all targets.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When the trace began.
    pub started: SystemTime,
    /// When this snapshot was taken.
    pub ended: SystemTime,
    /// The machine's name.
    pub host: String,
    /// The kernel's release, as uname(2) tells it.
    pub kernel: String,
    /// The targets, in the order of the report.
    pub targets: Vec<TargetSnapshot>,
}

/// One look at one target.
#[derive(Clone, Debug)]
pub struct TargetSnapshot {
    /// The process, in leakd's pid namespace.
    pub pid: u32,
    /// Its name, as the kernel has it.
    pub comm: String,
    /// The path of its executable.
    pub exe: String,
    /// What became of it.
    pub ended: Ended,
    /// How long it was under trace, in nanoseconds.
    pub duration_ns: u64,
    /// How long its tables had been filling, in nanoseconds: less than that if
    /// the governor closed windows: the time that probes were in since they
    /// were last empty.
    pub filling_ns: u64,
    /// Blocks younger than this, in nanoseconds, were counted as young.
    pub min_age_ns: u64,
    /// From when on its allocations were seen.
    pub seen_from: SeenFrom,
    /// Counters, summed over CPUs; see [`sum_counters`].
    pub counters: TargetCounters,
    /// How often its program was replaced: the counters are of all its programs, the
    /// sites of the last one.
    pub execs: u32,
    /// Mean bytes between two samples; 0: every allocation is recorded.
    pub sample_bytes: u64,
    /// Memory of the target's tables, in kernel and user space, in bytes.
    pub table_bytes: u64,
    /// When probes were on.
    pub windows: Windows,
    /// Which functions were probed.
    pub probes: Vec<Probe>,
    /// Files that have no unwind table, by path, with the reason.
    pub without_table: BTreeMap<String, String>,
    /// Functions that allocate and were not probed, with the reason.
    pub unprobed: Vec<Unprobed>,
    /// Blocks from before the trace that it frees a second, lately; `None`: only the
    /// counter of all of them is known.
    pub replaced_per_second: Option<f64>,
    /// What its control groups leave it, if they do and it runs.
    pub limit: Option<Limit>,
    /// How its anonymous memory grows, if that was followed.
    pub memory_growth: Option<Growth>,
    /// The call sites.
    pub sites: Vec<SiteSnapshot>,
    /// Frees that were wrong; `None`: it was not looked for them.
    pub bad_frees: Option<Vec<BadFreeSnapshot>>,
    /// Where its resident memory goes, if it runs.
    pub memory: Option<Memory>,
    /// How the kernel was traced, where it is the target.
    pub kernel: Option<KernelTrace>,
}

/// One call site.
#[derive(Clone, Debug)]
pub struct SiteSnapshot {
    /// Its key in the target's site table;
    /// [`OVERFLOW_SITE`](leakd_common::site::OVERFLOW_SITE) is understood.
    pub key: u64,
    /// Its totals.
    pub site: Site,
    /// Ages of its outstanding blocks; `None` if the ledger was not scanned.
    pub ages: Option<SiteAges>,
    /// How its outstanding bytes grow, if that was followed.
    pub growth: Option<Growth>,
    /// The return addresses, innermost first; empty if no stack was announced.
    pub addresses: Vec<u64>,
    /// Tells apart stacks of equal addresses that lead through other files.
    pub files: u64,
    /// The module of the outermost address, which is where the walk stopped;
    /// `None` if it is not known.
    pub outermost: Option<String>,
    /// For each address its frames, innermost first.
    pub frames: Vec<Vec<Frame>>,
    /// Why the walk stopped; `None` if no stack was announced.
    pub end: Option<StackEnd>,
    /// Frames that were found by the frame pointer for want of a table.
    pub frame_pointer_steps: u32,
    /// What only the kernel's sites have.
    pub kernel: Option<KernelSite>,
}

impl SiteSnapshot {
    /// What call sites that are one have in common: the addresses, and what they lead
    /// through. Not those that may be of several files: some of their calls are
    /// other ones.
    pub fn identity(&self) -> (Vec<u64>, u64, bool) {
        let of_several = self.end == Some(StackEnd::Stale) && self.frame_pointer_steps > 0;
        (self.addresses.clone(), self.files, of_several)
    }
}

/// A free that was wrong.
#[derive(Clone, Debug)]
pub struct BadFreeSnapshot {
    /// What the programs tell.
    pub bad: BadFree,
    /// Where it was.
    pub site: SiteSnapshot,
    /// Where the block had been freed before; `None`: it is no block.
    pub freed_at: Option<SiteSnapshot>,
    /// Where it had been allocated.
    pub allocated_at: Option<SiteSnapshot>,
}

/// Ages of the blocks of one site that are outstanding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteAges {
    /// Blocks of at least the minimum age, weighted as in [`Site`].
    pub aged_blocks: u64,
    /// Their bytes.
    pub aged_bytes: u64,
    /// Age of the oldest, in nanoseconds.
    pub oldest_ns: u64,
    /// Median age, in nanoseconds.
    pub median_ns: u64,
    /// Ages of some blocks, chosen evenly; in any order. A hundred are plenty.
    pub sample_ns: Vec<u64>,
    /// When they were allocated, of all of them.
    pub births: Births,
}

/// Adds up the counters of all CPUs.
pub fn sum_counters<'a>(cpus: impl IntoIterator<Item = &'a TargetCounters>) -> TargetCounters {
    let mut sum = TargetCounters::default();
    for cpu in cpus {
        for (total, value) in sum.counts.iter_mut().zip(cpu.counts) {
            *total = total.saturating_add(value);
        }
    }
    sum
}
