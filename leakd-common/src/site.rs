//! Totals of one call site.

use crate::plain_data;

/// Buckets of the lifetime histogram.
pub const LIFETIME_BUCKETS: usize = 32;

/// log2 of the upper bound of the first bucket, in nanoseconds.
pub const FIRST_BUCKET_BITS: u32 = 11;

/// The key under which blocks are counted whose call site found no room.
pub const OVERFLOW_SITE: u64 = u64::MAX;

/// What happened at one call site of one target since the trace began.
///
/// Blocks and bytes are weighted: with sampling, each block counts for as
/// many as it stands for. Outstanding is allocated minus freed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// Blocks allocated.
    pub allocated_blocks: u64,
    /// Bytes allocated.
    pub allocated_bytes: u64,
    /// Blocks freed, out of those allocated here.
    pub freed_blocks: u64,
    /// Bytes freed.
    pub freed_bytes: u64,
    /// 1 once the site's stack has been put into a ring.
    pub announced: u32,
    /// The target's epoch when it came into being. What an exec left behind is
    /// told from the rest by it, in whatever order the news of both arrive. 0 in
    /// the overflow site, which all epochs share, and in the kernel's sites.
    pub epoch: u32,
    /// Freed blocks by lifetime: bucket 0 is below 2^[`FIRST_BUCKET_BITS`] ns
    /// (2 us), bucket i below 2^(11+i), the last one is open.
    pub lifetimes: [u64; LIFETIME_BUCKETS],
}

plain_data!(Site = 296);

impl Site {
    /// A site at which nothing happened yet.
    pub const EMPTY: Self = Self {
        allocated_blocks: 0,
        allocated_bytes: 0,
        freed_blocks: 0,
        freed_bytes: 0,
        announced: 0,
        epoch: 0,
        lifetimes: [0; LIFETIME_BUCKETS],
    };

    /// The histogram bucket for a lifetime in nanoseconds.
    #[inline(always)]
    pub const fn bucket(lifetime_ns: u64) -> usize {
        let bits = 64 - (lifetime_ns | 1).leading_zeros();
        if bits <= FIRST_BUCKET_BITS {
            0
        } else if bits - FIRST_BUCKET_BITS >= LIFETIME_BUCKETS as u32 {
            LIFETIME_BUCKETS - 1
        } else {
            (bits - FIRST_BUCKET_BITS) as usize
        }
    }

    /// Blocks allocated here and not freed yet.
    pub const fn outstanding_blocks(&self) -> u64 {
        self.allocated_blocks.saturating_sub(self.freed_blocks)
    }

    /// Bytes allocated here and not freed yet.
    pub const fn outstanding_bytes(&self) -> u64 {
        self.allocated_bytes.saturating_sub(self.freed_bytes)
    }
}
