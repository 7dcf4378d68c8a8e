//! What crosses the boundary where the kernel's own memory is traced.

use crate::plain_data;
use crate::site::Site;

/// Frames of a kernel stack that are kept.
pub const KERNEL_FRAMES: usize = 64;

/// Call sites that the kernel may have.
pub const KERNEL_SITES: u32 = 16 << 10;

/// Outstanding blocks of the kernel that are kept track of, by default. The
/// table is made beforehand, some 100 bytes a block: a program that runs inside
/// of the allocator must not allocate.
pub const KERNEL_BLOCKS: u32 = 1 << 20;

/// Bytes of a cache's name that are kept; the last one is 0.
pub const CACHE_NAME: usize = 32;

/// Caches that a filter may let through.
pub const WANTED_CACHES: usize = 4;

/// Which allocator handed a block out.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KernelKind {
    /// kmalloc and its kin, by size.
    Kmalloc = 0,
    /// A slab cache of its own.
    Cache = 1,
    /// Whole pages.
    Pages = 2,
    /// Memory that each CPU has a copy of.
    PerCpu = 3,
    /// An area of addresses: vmalloc, vmap, ioremap.
    Vmalloc = 4,
}

impl KernelKind {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Kmalloc, Self::Cache, Self::Pages, Self::PerCpu, Self::Vmalloc];

    /// The kind with this number.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Kmalloc),
            1 => Some(Self::Cache),
            2 => Some(Self::Pages),
            3 => Some(Self::PerCpu),
            4 => Some(Self::Vmalloc),
            _ => None,
        }
    }
}

/// Totals of one call site in the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelSite {
    /// As for a process.
    pub totals: Site,
    /// Blocks that must have been freed in a way that no probe saw: their
    /// address was handed out again. They count as freed.
    pub reused: u64,
    /// The task that allocated here last: process id in the upper half, thread
    /// in the lower; 0 in an interrupt.
    pub task: u64,
    /// Its name.
    pub comm: [u8; 16],
    /// The flags of the last allocation.
    pub gfp: u32,
    /// [`KernelKind`].
    pub kind: u32,
}

plain_data!(KernelSite = 336);

impl KernelSite {
    /// A site at which nothing happened yet.
    pub const EMPTY: Self =
        Self { totals: Site::EMPTY, reused: 0, task: 0, comm: [0; 16], gfp: 0, kind: 0 };
}

/// Set in [`KernelStackRecord::flags`]: an interrupt allocated. What it
/// interrupted is left out.
pub const FLAG_INTERRUPT: u32 = 1;

/// A call site of the kernel seen for the first time.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelStackRecord {
    /// The site's key.
    pub site: u64,
    /// The address that the allocating function returns to; 0: not known.
    pub call_site: u64,
    /// The cache's name, up to a zero; empty where there is no cache.
    pub cache: [u8; CACHE_NAME],
    /// [`KernelKind`].
    pub kind: u32,
    /// Frames in use.
    pub depth: u32,
    /// [`FLAG_INTERRUPT`].
    pub flags: u32,
    /// 0.
    pub reserved: u32,
    /// Return addresses, innermost first, those of the program and of the
    /// tracepoint included.
    pub frames: [u64; KERNEL_FRAMES],
}

plain_data!(KernelStackRecord = 576);

/// The hash of a cache's name by which a filter knows it: the name's bytes,
/// filled up with zeros, as little-endian words.
#[inline(always)]
pub const fn cache_name_hash(words: &[u64; CACHE_NAME / 8]) -> u64 {
    let mut hash = 0;
    let mut index = 0;
    while index < words.len() {
        hash = mix(hash, words[index]);
        index += 1;
    }
    hash
}

/// Adds a word to a hash.
#[inline(always)]
pub const fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ (product >> 32)
}
