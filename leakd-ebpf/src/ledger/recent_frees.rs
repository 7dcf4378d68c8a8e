//! What was freed a moment ago, so that a second free of it can be told of; and
//! those that were.

use super::count;
use crate::support::{add, lookup};
use aya_ebpf::{
    btf_maps::{HashMap, LruHashMap},
    macros::btf_map,
};
use leakd_common::{
    bad_free::{BAD_FREES as MOST, BadFree, BadFreeKey, Freed, FreedKey},
    target::Counter,
};

const NOEXIST: u64 = 1; // BPF_NOEXIST

/// The blocks that were freed last. User space makes it as large as
/// [`leakd_common::bad_free::RECENT_FREES`] where frees are looked at.
#[btf_map]
static RECENT_FREES: LruHashMap<FreedKey, Freed, 1> = LruHashMap::new();

/// Frees that were wrong.
#[btf_map]
static BAD_FREES_FOUND: HashMap<BadFreeKey, BadFree, MOST> = HashMap::new();

/// Remembers a free.
#[inline(always)]
pub fn remember(key: &FreedKey, freed: &Freed) {
    if RECENT_FREES.insert(key, freed, 0).is_err() {
        count(key.slot, Counter::LostFrees);
    }
}

/// How this address was freed, if that was not long ago.
#[inline(always)]
pub fn find(key: &FreedKey) -> Option<*mut Freed> {
    lookup::<FreedKey, Freed>(core::ptr::from_ref(&RECENT_FREES).cast(), key)
}

/// Tells of a free that was wrong.
#[inline(always)]
pub fn tell(key: &BadFreeKey, bad: &BadFree) {
    count(key.slot, Counter::BadFrees);
    if BAD_FREES_FOUND.insert(key, bad, NOEXIST).is_ok() {
        return;
    }
    if let Some(known) =
        lookup::<BadFreeKey, BadFree>(core::ptr::from_ref(&BAD_FREES_FOUND).cast(), key)
    {
        // SAFETY: a value of the map, which outlives the program.
        unsafe { add(&raw mut (*known).count, 1) };
    }
}
