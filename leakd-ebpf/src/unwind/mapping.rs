//! Which executable mapping holds an address.

use super::{GO_ON, Walk, mix};
use crate::support::lookup;
use aya_ebpf::{
    btf_maps::{Array, LpmTrie},
    macros::btf_map,
    maps::lpm_trie::Key,
};
use core::hint::black_box;
use leakd_common::{
    event::StackEnd,
    unwind::{MAPPINGS as MAX_MAPPINGS, Mapping, MappingKey, NO_TABLE, TABLES, TableGeometry},
};

/// The executable mappings of all targets, as prefixes of (process, address).
#[btf_map]
static MAPPINGS: LpmTrie<MappingKey, Mapping, MAX_MAPPINGS> = LpmTrie::new();

/// Where each table's parts are.
#[btf_map]
static GEOMETRY: Array<TableGeometry, TABLES, 0x400> = Array::new();

/// Finds the mapping and the table for an address of the walk.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn enter_mapping(walk: *mut Walk, address: u64) -> u64 {
    if walk.is_null() {
        return StackEnd::Internal as u64;
    }
    // SAFETY: not null, and the verifier checks that it is a whole Walk.
    let state = unsafe { &mut *walk };
    // 6.1 rejects keys that point into an argument of a global function.
    let key = black_box(Key::new(128, MappingKey::new(state.tgid, address)));
    let Some(mapping) = lookup::<_, Mapping>((&raw const MAPPINGS).cast(), &key) else {
        return StackEnd::NoMapping as u64;
    };
    // SAFETY: trie values stay readable until the program ends.
    let mapping = unsafe { &*mapping };
    if address < mapping.begin || address >= mapping.end {
        return StackEnd::NoMapping as u64;
    }
    let number = black_box(mapping.table);
    if number == NO_TABLE {
        return StackEnd::NoTable as u64;
    }
    let Some(geometry) = lookup::<_, TableGeometry>((&raw const GEOMETRY).cast(), &number) else {
        return StackEnd::Internal as u64;
    };
    // SAFETY: array values are never freed.
    let geometry = unsafe { &*geometry };
    state.begin = mapping.begin;
    state.end_of_mapping = mapping.end;
    state.bias = mapping.bias;
    state.table = number;
    // Equal addresses in another file are another call site.
    state.hash = mix(state.hash, u64::from(number));
    state.first_page = geometry.first_page;
    state.pages = geometry.pages;
    state.row_cell = geometry.row_cell;
    GO_ON
}
