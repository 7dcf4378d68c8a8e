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
    /// [`FreeChecks`](crate::bad_free::FreeChecks).
    pub free_checks: u32,
    /// 0.
    pub reserved: u32,
    /// When the epoch began: CLOCK_MONOTONIC, ns.
    pub epoch_began_ns: u64,
}

plain_data!(TargetConfig = 32);

/// Index of each counter in [`TargetCounters`].
///
/// The hot paths bump one counter a call; the rest is derived, see
/// [`TargetCounters`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counter {
    /// Blocks put into the ledger.
    Inserted = 0,
    /// Blocks taken out of it because they were freed.
    Removed = 1,
    /// Frees of an address that is not in the ledger: allocated before the
    /// attach, sampled out, lost, or never allocated.
    UnknownFrees = 2,
    /// Calls that returned no block.
    Failed = 3,
    /// Allocations that sampling left out.
    SampledOut = 4,
    /// Lost: the target's ledger was full.
    LostLedgerFull = 5,
    /// Lost: the kernel had no memory for the block, or its lock was busy.
    LostNoMemory = 6,
    /// Lost: no room for the thread's state.
    LostThread = 7,
    /// Lost: a return without its entry, or an entry without its return.
    LostUnpaired = 8,
    /// Bytes of the allocations lost for want of room or memory.
    LostBytes = 9,
    /// Not lost, but counted under one site: the site table was full.
    SitesFull = 10,
    /// Stacks that found no room in the ring; they are announced again.
    RingFull = 11,
    /// A block that two threads freed at the same time.
    DoubleFrees = 12,
    /// Stacks that did not reach the outermost frame.
    StacksIncomplete = 13,
    /// Calls inside an allocator call, which are not counted as allocations.
    Nested = 14,
    /// Page faults whose call site found no room.
    LostPageFaults = 15,
    /// Calls of freeing functions that mean nothing: of NULL, inside another
    /// call, or of a block of another allocator. Each is a trap all the same.
    Ignored = 16,
    /// Kernel: blocks whose address was handed out again without a free that a
    /// probe saw. They count as freed.
    Reused = 17,
    /// Kernel: frees that the first program missed, because it had been
    /// interrupted in the middle of another, and the second one saw.
    SecondLook = 18,
    /// Kernel: pages for user memory and the page cache, which are left out.
    Movable = 19,
    /// Frees that were wrong ([`crate::bad_free`]), where it is looked for them.
    BadFrees = 20,
    /// Frees that could not be remembered.
    LostFrees = 21,
    /// Kernel: allocations and frees outside of what is to be traced. They cost
    /// something all the same.
    Filtered = 22,
    /// Kernel: stacks that were known again, walked all the same, and found right.
    StacksConfirmed = 23,
    /// Kernel: those that were found wrong.
    StacksMistaken = 24,
}

/// Number of counters, with room to grow.
pub const COUNTERS: usize = 32;

/// One CPU's counters of one target, indexed by [`Counter`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TargetCounters {
    /// The counts.
    pub counts: [u64; COUNTERS],
}

plain_data!(TargetCounters = 256);

impl TargetCounters {
    /// The value of one counter.
    pub const fn get(&self, counter: Counter) -> u64 {
        self.counts[counter as usize]
    }

    /// Allocations that were seen, whether they could be kept or not.
    pub const fn allocations(&self) -> u64 {
        self.get(Counter::Inserted)
            .saturating_add(self.get(Counter::SampledOut))
            .saturating_add(self.get(Counter::LostLedgerFull))
            .saturating_add(self.get(Counter::LostNoMemory))
    }

    /// Frees that were seen.
    pub const fn frees(&self) -> u64 {
        self.get(Counter::Removed).saturating_add(self.get(Counter::UnknownFrees))
    }
}

/// The sampling class of a size in bytes: the power of two, then the three
/// bits after the leading one.
#[inline(always)]
pub const fn sample_class(size: u64) -> usize {
    let size = size | 1;
    let power = 63 - size.leading_zeros();
    let fraction = if power >= 3 { size >> (power - 3) } else { size << (3 - power) } & 7;
    (power as usize) << 3 | fraction as usize
}
