//! The ledger: which blocks are outstanding, and what happened at each site.
//!
//! A block is in the ledger from its allocation until it is freed; the one
//! that removes it from the map is the one that accounts for it. Sites count
//! only what reached the ledger, so that allocated minus freed is what is
//! outstanding, exactly. Old blocks are never evicted: when the ledger is
//! full, new ones are lost, and counted.

pub mod recent_frees;
mod sampling;
mod sites;

use crate::support::{add, lookup};
use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, HashMap, PerCpuArray},
    helpers::generated as helper,
    macros::btf_map,
};
use core::ffi::c_void;
use leakd_common::{
    block::Block,
    target::{Counter, TARGETS as MAX_TARGETS, TargetConfig, TargetCounters},
};
pub use sampling::weight;
pub use sites::Sites;

const NO_PREALLOC: usize = 1; // BPF_F_NO_PREALLOC
const E2BIG: i32 = 7;
const NOEXIST: u64 = 1; // BPF_NOEXIST

/// The settings of each slot.
#[btf_map]
pub static TARGETS: Array<TargetConfig, MAX_TARGETS> = Array::new();

/// The counters of each slot.
#[btf_map]
static COUNTERS: PerCpuArray<TargetCounters, MAX_TARGETS> = PerCpuArray::new();

/// What the kernel asks of the maps that stand in `BLOCKS`. It does not ask that
/// they be as large, and this one is made, too: of a large one it would take the
/// buckets, tens of MiB, for nothing.
type BlockMap = HashMap<u64, Block, 1, NO_PREALLOC>;

/// The outstanding blocks of each slot, by address. An inner map for each
/// target gives each its own quota, teardown and snapshot.
#[btf_map]
static BLOCKS: ArrayOfMaps<BlockMap, MAX_TARGETS> = ArrayOfMaps::new();

/// Adds 1 to a counter of a slot.
#[inline(always)]
pub fn count(slot: u32, counter: Counter) {
    count_by(slot, counter, 1);
}

/// Adds to a counter of a slot.
#[inline(always)]
pub fn count_by(slot: u32, counter: Counter, value: u64) {
    if let Some(counters) = COUNTERS.get_ptr_mut(slot) {
        // SAFETY: the index is a constant below COUNTERS' length.
        unsafe { add(&raw mut (*counters).counts[counter as usize], value) };
    }
}

/// The outstanding blocks of one target.
#[derive(Clone, Copy)]
pub struct Blocks {
    map: *const c_void,
    slot: u32,
}

impl Blocks {
    /// The ledger of a slot, while it is in use.
    #[inline(always)]
    pub fn of(slot: u32) -> Option<Self> {
        let map = BLOCKS.get(slot)?;
        Some(Self { map: core::ptr::from_ref(map).cast::<c_void>(), slot })
    }

    /// A copy of the block at this address.
    #[inline(always)]
    pub fn get(self, address: u64) -> Option<Block> {
        // SAFETY: hash values stay readable until the program ends.
        lookup::<u64, Block>(self.map, &address).map(|block| unsafe { *block })
    }

    /// Puts a block in; false if it was lost, which is then counted.
    #[inline(always)]
    pub fn insert(self, address: u64, block: &Block) -> bool {
        // SAFETY: key and value have the map's sizes.
        let status = unsafe {
            helper::bpf_map_update_elem(
                self.map.cast_mut(),
                core::ptr::from_ref(&address).cast::<c_void>(),
                core::ptr::from_ref(block).cast::<c_void>(),
                NOEXIST,
            )
        };
        if status == 0 {
            return true;
        }
        // The kernel calls the map's function directly, and before 6.4 that
        // returned an int: only these 32 bits hold a value.
        self.insert_anyway(address, block, status as i32)
    }

    /// The address is taken already: its free was not seen (the block before
    /// the exec, or one freed in a way that has no probe). That block is gone.
    #[inline(always)]
    fn insert_anyway(self, address: u64, block: &Block, status: i32) -> bool {
        if let Some(old) = self.get(address) {
            self.remove(address, &old);
            // SAFETY: as in `insert`.
            let status = unsafe {
                helper::bpf_map_update_elem(
                    self.map.cast_mut(),
                    core::ptr::from_ref(&address).cast::<c_void>(),
                    core::ptr::from_ref(block).cast::<c_void>(),
                    0,
                )
            };
            if status == 0 {
                return true;
            }
        }
        let cause = if status == -E2BIG { Counter::LostLedgerFull } else { Counter::LostNoMemory };
        count(self.slot, cause);
        count_by(self.slot, Counter::LostBytes, block.size());
        false
    }

    /// Takes a block out without accounting for it; false if it was not there.
    #[inline(always)]
    pub fn take(self, address: u64) -> bool {
        // SAFETY: the key has the map's size.
        unsafe {
            helper::bpf_map_delete_elem(
                self.map.cast_mut(),
                core::ptr::from_ref(&address).cast::<c_void>(),
            ) == 0
        }
    }

    /// Takes a block out and accounts for it as freed.
    #[inline(always)]
    pub fn remove(self, address: u64, block: &Block) {
        if self.take(address) {
            self.account_freed(block);
        } else {
            count(self.slot, Counter::DoubleFrees);
        }
    }

    /// Accounts for a block that is out of the ledger already.
    #[inline(always)]
    pub fn account_freed(self, block: &Block) {
        count(self.slot, Counter::Removed);
        if let Some(sites) = Sites::of(self.slot) {
            sites.freed(block);
        }
    }
}
