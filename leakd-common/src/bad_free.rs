//! Blocks that are freed twice, and frees of what is no block.

use crate::plain_data;

/// Frees that are remembered, over all targets.
pub const RECENT_FREES: u32 = 16 << 10;
/// Pairs of call sites that are told of, over all targets.
pub const BAD_FREES: usize = 1 << 10;

/// What is done about frees in a target ([`crate::target::TargetConfig`]).
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreeChecks {
    /// Nothing.
    Off = 0,
    /// A block that was freed twice is told of.
    Twice = 1,
    /// The same, and what was never allocated: where every allocation was seen.
    All = 2,
}

/// A place that a target had freed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FreedKey {
    /// The block's address.
    pub address: u64,
    /// The target's slot.
    pub slot: u32,
    /// The target's epoch.
    pub epoch: u32,
}

plain_data!(FreedKey = 16);

/// How a block was freed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Where it was freed: a call site like those of allocations.
    pub site: u64,
    /// Where it had been allocated.
    pub allocated_at: u64,
    /// As in [`crate::block::Block`].
    pub size_and_owner: u64,
    /// When it was freed, CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
    /// The address of the return address of that call ...
    pub frame: u64,
    /// ... what stood there ...
    pub caller: u64,
    /// ... and the probed instruction: they tell a call inside that call from
    /// another one.
    pub function: u64,
    /// The thread.
    pub tid: u32,
    /// 0.
    pub reserved: u32,
}

plain_data!(Freed = 64);

/// Frees that were wrong in the same way.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BadFreeKey {
    /// The call site of the free that was wrong.
    pub site: u64,
    /// The call site of the free before; 0: there was none, what was freed is no
    /// block.
    pub freed_at: u64,
    /// The target's slot.
    pub slot: u32,
    /// The target's epoch.
    pub epoch: u32,
}

plain_data!(BadFreeKey = 24);

/// How often that was, and of the first time what is known.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BadFree {
    /// Times.
    pub count: u64,
    /// The address.
    pub address: u64,
    /// Where the block was allocated; 0: it is none.
    pub allocated_at: u64,
    /// Its size, as in [`crate::block::Block`].
    pub size_and_owner: u64,
    /// When it was freed rightly, CLOCK_MONOTONIC, nanoseconds; 0: never.
    pub freed_ns: u64,
    /// When it was freed wrongly.
    pub time_ns: u64,
    /// The thread that freed it rightly.
    pub freed_tid: u32,
    /// The thread that freed it wrongly.
    pub tid: u32,
}

plain_data!(BadFree = 56);
