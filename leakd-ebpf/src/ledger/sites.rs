//! Totals of each call site.

use super::count;
use crate::{
    ring::{self, NotAnnounced},
    support::{add, lookup, opaque},
    unwind::Walk,
};
use aya_ebpf::{
    btf_maps::{ArrayOfMaps, HashMap},
    helpers::generated as helper,
    macros::btf_map,
};
use core::ffi::c_void;
use leakd_common::{
    block::Block,
    event::{EventKind, StackEnd},
    site::{LIFETIME_BUCKETS, OVERFLOW_SITE, Site},
    target::{Counter, SITES as MAX_SITES, TARGETS as MAX_TARGETS},
};

const NO_PREALLOC: usize = 1; // BPF_F_NO_PREALLOC
const NOEXIST: u64 = 1; // BPF_NOEXIST

type SiteMap = HashMap<u64, Site, { MAX_SITES as usize }, NO_PREALLOC>;

/// The call sites of each slot, by stack hash.
#[btf_map]
static SITES: ArrayOfMaps<SiteMap, MAX_TARGETS> = ArrayOfMaps::new();

/// What a new site starts from; in .rodata, since 296 bytes are too much for
/// the BPF stack.
#[unsafe(no_mangle)]
static EMPTY_SITE: Site = Site::EMPTY;

/// The call sites of one target.
#[derive(Clone, Copy)]
pub struct Sites {
    map: *const c_void,
    slot: u32,
}

impl Sites {
    /// The sites of a slot, while it is in use.
    #[inline(always)]
    pub fn of(slot: u32) -> Option<Self> {
        let map = SITES.get(slot)?;
        Some(Self { map: core::ptr::from_ref(map).cast::<c_void>(), slot })
    }

    /// The site with this key, made if need be, in this epoch. Where there is no room, the
    /// overflow site, which user space makes beforehand.
    #[inline(always)]
    pub fn find_or_make(self, key: u64, epoch: u32) -> Option<(u64, *mut Site)> {
        if let Some(site) = lookup::<u64, Site>(self.map, &key) {
            return Some((key, site));
        }
        // SAFETY: key and value have the map's sizes. A lost race is no error:
        // the other one's site is found below.
        unsafe {
            helper::bpf_map_update_elem(
                self.map.cast_mut(),
                core::ptr::from_ref(&key).cast::<c_void>(),
                core::ptr::from_ref(&EMPTY_SITE).cast::<c_void>(),
                NOEXIST,
            );
        }
        if let Some(site) = lookup::<u64, Site>(self.map, &key) {
            // SAFETY: a value of the site map, which outlives the program. Who
            // lost the race writes the same: the epoch is part of the key.
            unsafe { (*site).epoch = epoch };
            return Some((key, site));
        }
        count(self.slot, Counter::SitesFull);
        let key = OVERFLOW_SITE;
        lookup::<u64, Site>(self.map, &key).map(|site| (key, site))
    }

    /// Accounts for a block that has been put into the ledger.
    #[inline(always)]
    pub fn allocated(site: *mut Site, block: &Block) {
        let weight = u64::from(block.weight);
        // SAFETY: `site` is a value of the site map, which outlives the program.
        unsafe {
            add(&raw mut (*site).allocated_blocks, weight);
            add(&raw mut (*site).allocated_bytes, block.size() * weight);
        }
    }

    /// Accounts for a block that has been taken out of the ledger.
    #[inline(always)]
    pub fn freed(self, block: &Block) {
        let Some(site) = lookup::<u64, Site>(self.map, &block.site) else { return };
        // SAFETY: the helper has no preconditions.
        let now = unsafe { helper::bpf_ktime_get_ns() };
        let weight = u64::from(block.weight);
        // The verifier does not see that a bucket is below the bound.
        let bucket =
            opaque(Site::bucket(now.wrapping_sub(block.birth_ns))) & (LIFETIME_BUCKETS - 1);
        // SAFETY: as above; the bucket is below LIFETIME_BUCKETS.
        unsafe {
            add(&raw mut (*site).freed_blocks, weight);
            add(&raw mut (*site).freed_bytes, block.size() * weight);
            add((&raw mut (*site).lifetimes).cast::<u64>().add(bucket), weight);
        }
    }

    /// Tells user space of the site's stack. Where that cannot be, the next allocation
    /// at this site tries again.
    #[inline(always)]
    pub fn announce(self, key: u64, site: *mut Site, walk: Walk, ids: u64, epoch: u32) {
        let end = match ring::announce_stack(EventKind::Stack, self.slot, key, walk, ids, epoch) {
            Ok(end) => end,
            Err(NotAnnounced::Changed) => return,
            Err(NotAnnounced::NoRoom) => {
                count(self.slot, Counter::RingFull);
                return;
            }
        };
        // SAFETY: `site` is a value of the site map, which outlives the program.
        unsafe { (*site).announced = 1 };
        if end != StackEnd::Bottom as u32 && end != StackEnd::ZeroReturn as u32 {
            count(self.slot, Counter::StacksIncomplete);
        }
    }
}
