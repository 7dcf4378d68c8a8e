//! Settings and counters of one target.

use crate::plain_data;

/// Targets that can be traced at the same time.
pub const TARGETS: usize = 256;

/// Outstanding blocks that one target may have in the ledger, by default.
pub const DEFAULT_BLOCKS: u32 = 4 << 20;

/// Call sites that one target may have.
pub const SITES: u32 = 64 << 10;

/// Entries of the sampling table of a target: eight for each power of two.
pub const SAMPLE_CLASSES: usize = 64 * 8;

/// What user space tells the probes of a target.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TargetConfig {
    /// The process, as the initial pid namespace numbers it; 0: slot unused.
    pub tgid: u32,
    /// Grows with each exec; it seeds the call-site hash, so that blocks of
    /// the old and the new program image never share a site.
    pub epoch: u32,
    /// 1: consult the sampling table.
    pub sampling: u32,
    /// 1: nothing is recorded (the slot is being torn down, or a window is
    /// closed).
    pub paused: u32,
}

plain_data!(TargetConfig = 16);

/// Index of each counter in [`TargetCounters`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counter {
    /// Calls of an allocating function that returned a block, sampled or not.
    Allocations = 0,
    /// Calls of a freeing function (realloc included) with a block.
    Frees = 1,
    /// Frees of an address that is not in the ledger: allocated before the
    /// attach, sampled out, or never allocated.
    UnknownFrees = 2,
    /// Allocations that returned no block.
    Failed = 3,
    /// Blocks in the ledger: put in ...
    Inserted = 4,
    /// ... and taken out.
    Removed = 5,
    /// Allocations that sampling left out.
    SampledOut = 6,
    /// Lost: the target's ledger was full.
    LostLedgerFull = 7,
    /// Lost: the kernel had no memory for the block, or was busy.
    LostNoMemory = 8,
    /// Lost: no room for the thread's state.
    LostThread = 9,
    /// Lost: return without entry or entry without return.
    LostUnpaired = 10,
    /// Not lost, but counted under one site: the site table was full.
    SitesFull = 11,
    /// Stacks that found no room in the ring; they are announced again.
    RingFull = 12,
    /// Two threads freed the same block.
    DoubleFrees = 13,
    /// Stacks walked ...
    Stacks = 14,
    /// ... and those that reached the outermost frame.
    StacksComplete = 15,
    /// Probe hits, entry and return, for the cost estimate.
    EntryTraps = 16,
    /// Return probe hits.
    ReturnTraps = 17,
    /// Bytes of the allocations counted in `Allocations`.
    AllocatedBytes = 18,
    /// Bytes that the `Lost*` allocations had.
    LostBytes = 19,
}

/// Number of counters, with room to grow.
pub const COUNTERS: usize = 24;

/// One CPU's counters of one target, indexed by [`Counter`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TargetCounters {
    /// The counts.
    pub counts: [u64; COUNTERS],
}

plain_data!(TargetCounters = 192);

impl TargetCounters {
    /// The value of one counter.
    pub const fn get(&self, counter: Counter) -> u64 {
        self.counts[counter as usize]
    }
}
