//! One outstanding allocation in the ledger.

use crate::plain_data;

/// The value kept for each outstanding block, under its address.
///
/// 32 bytes: with the kernel's hash element around it, a block then takes a
/// kmalloc object of 96 bytes; one word more and it would take 128.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Bits 0..56: the size in bytes that was asked for; bits 56..64: the
    /// owner (see [`crate::cookie::Cookie::owner`]).
    pub size_and_owner: u64,
    /// When it was allocated, by CLOCK_MONOTONIC, in nanoseconds.
    pub birth_ns: u64,
    /// The call site: the key in the target's site table.
    pub site: u64,
    /// How many blocks this one stands for: 1 unless sampled.
    pub weight: u32,
    /// The thread that allocated it.
    pub tid: u32,
}

plain_data!(Block = 32);

const SIZE_BITS: u32 = 56;

impl Block {
    /// Packs size and owner. Sizes of 2^56 and above are cut off: no machine
    /// can hand out such a block.
    #[inline(always)]
    pub const fn pack(size: u64, owner: u8) -> u64 {
        (size & ((1 << SIZE_BITS) - 1)) | (owner as u64) << SIZE_BITS
    }

    /// The size in bytes that was asked for.
    #[inline(always)]
    pub const fn size(&self) -> u64 {
        self.size_and_owner & ((1 << SIZE_BITS) - 1)
    }

    /// The allocator object that handed the block out.
    #[inline(always)]
    pub const fn owner(&self) -> u8 {
        (self.size_and_owner >> SIZE_BITS) as u8
    }
}
