//! Page faults of targets, by call site.

use crate::plain_data;

/// Call sites of page faults, over all targets.
pub const PAGE_FAULT_SITES: usize = 64 << 10;

/// A call site of one target.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PageFaultKey {
    /// The target's slot.
    pub slot: u32,
    /// 0.
    pub reserved: u32,
    /// Hash of the stack, as in [`crate::site`].
    pub site: u64,
}

plain_data!(PageFaultKey = 16);

/// What happened at one call site.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageFaultSite {
    /// Page faults that user code took here.
    pub faults: u64,
    /// 1 once the site's stack has been put into a ring.
    pub announced: u32,
    /// The target's epoch when it came into being.
    pub epoch: u32,
}

plain_data!(PageFaultSite = 16);
