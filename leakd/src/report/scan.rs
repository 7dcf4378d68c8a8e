//! What a scan found, as data: the schema `leakd.scan/1`, which `docs/SCAN.md`
//! describes. Fields may be added, never renamed.

use std::collections::HashMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::build::{model_frame, stack_end};
use super::input::{SiteSnapshot, TargetSnapshot};
use super::model::{Frame, Omitted, SeenFrom, StackEnd};
use super::time;
use crate::scan::graph::Reach;
use crate::scan::index::Block;
use crate::scan::{How, Outcome};

/// The name and version of the format.
pub const SCHEMA: &str = "leakd.scan/1";
/// Blocks of a call site whose addresses are told.
const EXAMPLES: usize = 10;

/// What a scan found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScanReport {
    /// [`SCHEMA`].
    pub schema: String,
    /// When it was done, RFC 3339 in UTC.
    pub time: String,
    /// The machine's name.
    pub host: String,
    /// The kernel's release.
    pub kernel: String,
    /// Version of the leakd that wrote it.
    pub leakd: String,
    /// The process id.
    pub pid: u32,
    /// The process's name.
    pub comm: String,
    /// The path of its executable.
    pub exe: String,
    /// For how long its allocations had been recorded, in nanoseconds.
    pub traced_ns: u64,
    /// From when on they were recorded.
    pub seen_from: SeenFrom,
    /// Allocations that were lost meanwhile: their blocks are not judged.
    pub lost: u64,
    /// Blocks and bytes are extrapolated from samples.
    pub estimated: bool,
    /// How it was done.
    pub method: Method,
    /// All blocks.
    pub total: Classes,
    /// Blocks that were freed meanwhile.
    pub freed: u64,
    /// The call sites, those that lost most first.
    pub sites: Vec<ScanSite>,
    /// Call sites that were left out of `sites`.
    pub omitted: Omitted,
}

/// How a scan was done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Method {
    /// The process was stopped for so long (ns); null: it ran on.
    pub stopped_ns: Option<u64>,
    /// How often it was looked at.
    pub rounds: u32,
    /// Of these, at all of its memory.
    pub whole_rounds: u32,
    /// The last look was at a process that did not run meanwhile.
    pub exact: bool,
    /// Threads were stopped, each for a moment.
    pub threads_stopped: bool,
    /// Bytes of its memory that hold something.
    pub bytes: u64,
    /// Bytes that were looked at in all rounds together ...
    pub read_bytes: u64,
    /// ... and the time that took, in nanoseconds.
    pub read_ns: u64,
    /// Time that all of it took, in nanoseconds.
    pub took_ns: u64,
    /// Bytes that could not be read. More than 0: nothing is called more than
    /// possibly lost.
    pub unreadable_bytes: u64,
    /// Threads whose registers could not be seen; the same.
    pub unread_threads: u64,
}

/// Blocks and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Blocks.
    pub blocks: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, block: &Block) {
        let weight = u64::from(block.weight);
        self.blocks = self.blocks.saturating_add(weight);
        self.bytes = self.bytes.saturating_add(block.size.saturating_mul(weight));
    }

    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            blocks: self.blocks.saturating_add(other.blocks),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

/// Blocks by class, in valgrind's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Classes {
    /// Nothing leads to them.
    pub definitely_lost: Amount,
    /// Only blocks that are lost lead to them.
    pub indirectly_lost: Amount,
    /// Only pointers to the inside of blocks lead to them, or only heap memory
    /// that the trace does not know.
    pub possibly_lost: Amount,
    /// Of these, the latter.
    pub held_by_unknown: Amount,
    /// Pointers to the starts of blocks lead to them.
    pub still_reachable: Amount,
}

impl Classes {
    fn add(&mut self, block: &Block, reach: Reach) {
        match reach {
            Reach::Definitely => self.definitely_lost.add(block),
            Reach::Indirectly => self.indirectly_lost.add(block),
            Reach::Possibly => self.possibly_lost.add(block),
            Reach::Unknown => {
                self.possibly_lost.add(block);
                self.held_by_unknown.add(block);
            }
            Reach::Reachable => self.still_reachable.add(block),
        }
    }

    /// What is lost, definitely or indirectly.
    pub fn lost(&self) -> Amount {
        self.definitely_lost.plus(self.indirectly_lost)
    }

    fn rank(&self) -> [u64; 4] {
        let classes =
            [self.definitely_lost, self.indirectly_lost, self.possibly_lost, self.still_reachable];
        classes.map(|amount| amount.bytes)
    }
}

/// One call site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScanSite {
    /// As in a report of the same trace.
    pub id: String,
    /// Its blocks.
    #[serde(flatten)]
    pub classes: Classes,
    /// Where some of those are that are definitely lost, in hex.
    pub examples: Vec<String>,
    /// The call stack, innermost frame first.
    pub stack: Vec<Frame>,
    /// Why the walk stopped.
    pub stack_end: StackEnd,
}

/// Makes the report; `top`: call sites that are listed, `None`: all.
pub fn build(target: TargetSnapshot, outcome: &Outcome, top: Option<usize>) -> ScanReport {
    let lost = [
        leakd_common::target::Counter::LostLedgerFull,
        leakd_common::target::Counter::LostNoMemory,
        leakd_common::target::Counter::LostThread,
        leakd_common::target::Counter::LostUnpaired,
    ];
    let mut total = Classes::default();
    for (block, reach) in &outcome.blocks {
        total.add(block, *reach);
    }
    let mut sites = sites(target.sites, outcome);
    let mut omitted = Omitted::default();
    for site in sites.drain(top.unwrap_or(usize::MAX).min(sites.len())..) {
        let all = site.classes.lost().plus(site.classes.possibly_lost);
        let all = all.plus(site.classes.still_reachable);
        omitted.sites += 1;
        omitted.bytes = omitted.bytes.saturating_add(all.bytes);
        omitted.blocks = omitted.blocks.saturating_add(all.blocks);
    }
    ScanReport {
        schema: SCHEMA.to_owned(),
        time: time::rfc3339(SystemTime::now()),
        host: crate::preflight::host(),
        kernel: crate::preflight::release(),
        leakd: env!("CARGO_PKG_VERSION").to_owned(),
        pid: target.pid,
        comm: target.comm,
        exe: target.exe,
        traced_ns: target.duration_ns,
        seen_from: target.seen_from,
        lost: lost.into_iter().map(|counter| target.counters.get(counter)).sum(),
        estimated: target.sample_bytes > 0,
        method: method(&outcome.how),
        total,
        freed: outcome.how.freed,
        sites,
        omitted,
    }
}

fn method(how: &How) -> Method {
    let nanoseconds = |time: std::time::Duration| time.as_nanos() as u64;
    Method {
        stopped_ns: how.stopped.map(nanoseconds),
        rounds: how.rounds,
        whole_rounds: how.whole_rounds,
        exact: how.exact,
        threads_stopped: how.threads_stopped,
        bytes: how.bytes,
        read_bytes: how.bytes_read,
        read_ns: nanoseconds(how.reading),
        took_ns: nanoseconds(how.took),
        unreadable_bytes: how.unreadable,
        unread_threads: how.unread_threads as u64,
    }
}

/// The call sites of the blocks, those that lost most first; what has the same
/// stack is one.
fn sites(snapshots: Vec<SiteSnapshot>, outcome: &Outcome) -> Vec<ScanSite> {
    let mut numbers: HashMap<u64, usize> = HashMap::new();
    let mut by_stack: HashMap<_, usize> = HashMap::new();
    let mut sites: Vec<ScanSite> = Vec::new();
    for snapshot in snapshots {
        let key = snapshot.key;
        let next = sites.len();
        let number = match snapshot.addresses.is_empty() {
            true => next,
            false => *by_stack.entry(snapshot.identity()).or_insert(next),
        };
        numbers.insert(key, number);
        if number == next {
            sites.push(ScanSite {
                id: format!("{key:016x}"),
                classes: Classes::default(),
                examples: Vec::new(),
                stack_end: stack_end(&snapshot),
                stack: snapshot.frames.into_iter().flatten().map(model_frame).collect(),
            });
        }
    }
    for (block, reach) in &outcome.blocks {
        let number = *numbers.entry(block.site).or_insert_with(|| {
            // Its totals were read before its first block was.
            sites.push(ScanSite {
                id: format!("{:016x}", block.site),
                classes: Classes::default(),
                examples: Vec::new(),
                stack: Vec::new(),
                stack_end: StackEnd::NotSeen,
            });
            sites.len() - 1
        });
        let Some(site) = sites.get_mut(number) else { continue };
        site.classes.add(block, *reach);
        if *reach == Reach::Definitely && site.examples.len() < EXAMPLES {
            site.examples.push(format!("{:#x}", block.address));
        }
    }
    sites.retain(|site| site.classes != Classes::default());
    sites.sort_by(|one, other| {
        other.classes.rank().cmp(&one.classes.rank()).then_with(|| one.id.cmp(&other.id))
    });
    sites
}
