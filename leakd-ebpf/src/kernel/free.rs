//! Raw tracepoints where the kernel takes memory back.
//!
//! An interrupt that comes while a program runs does not run that same program:
//! with hundreds of packets to free, that would be hundreds of blocks that seem
//! to leak. So a second program stands behind each one that interrupts may
//! reach; it finds what the first one missed.

use crate::{
    Arguments, filter,
    ledger::{count_left_out, freed},
};
use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use core::ffi::c_void;

/// Tracepoints with two programs.
const KFREE: u32 = 0;
const CACHE: u32 = 1;
const PAGE: u32 = 2;

/// The block that the first program of each of them saw last on this CPU, until the
/// second one has looked.
#[btf_map]
static SEEN: PerCpuArray<u64, 3> = PerCpuArray::new();

/// Has the second program know that the first one ran, and so not look the block up
/// again.
#[inline(always)]
fn saw(tracepoint: u32, address: u64) {
    if let Some(seen) = SEEN.get_ptr_mut(tracepoint) {
        // SAFETY: a word of this CPU's value.
        unsafe { seen.write_volatile(address) };
    }
}

/// Whether the first program missed a block. An interrupt between the two leaves its
/// own block here: then the second one looks in vain.
#[inline(always)]
fn was_missed(tracepoint: u32, address: u64) -> bool {
    let Some(seen) = SEEN.get_ptr_mut(tracepoint) else { return true };
    // SAFETY: a word of this CPU's value.
    if unsafe { seen.read_volatile() } != address {
        return true;
    }
    // SAFETY: as above. The same block may come again.
    unsafe { seen.write_volatile(0) };
    false
}

/// kfree(call_site, ptr)
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/kfree")]
pub fn kfree(context: *mut c_void) -> i32 {
    let address = Arguments(context.cast()).get(1);
    saw(KFREE, address);
    if address != 0 {
        freed(address, true);
    }
    0
}

/// As [`kfree`], once more.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/kfree")]
pub fn kfree_again(context: *mut c_void) -> i32 {
    let address = Arguments(context.cast()).get(1);
    if was_missed(KFREE, address) {
        freed(address, false);
    }
    0
}

/// kmem_cache_free(call_site, ptr, cache)
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/kmem_cache_free")]
pub fn cache_free(context: *mut c_void) -> i32 {
    let arguments = Arguments(context.cast());
    saw(CACHE, arguments.get(1));
    if filter::wants_cache(arguments.get(2)) {
        freed(arguments.get(1), true);
    } else {
        count_left_out();
    }
    0
}

/// As [`cache_free`], once more.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/kmem_cache_free")]
pub fn cache_free_again(context: *mut c_void) -> i32 {
    let arguments = Arguments(context.cast());
    let address = arguments.get(1);
    if was_missed(CACHE, address) && filter::wants_cache(arguments.get(2)) {
        freed(address, false);
    }
    0
}

/// mm_page_free(page, order)
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/mm_page_free")]
pub fn page_free(context: *mut c_void) -> i32 {
    let address = Arguments(context.cast()).get(0);
    saw(PAGE, address);
    freed(address, true);
    0
}

/// As [`page_free`], once more.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/mm_page_free")]
pub fn page_free_again(context: *mut c_void) -> i32 {
    let address = Arguments(context.cast()).get(0);
    if was_missed(PAGE, address) {
        freed(address, false);
    }
    0
}

/// percpu_free_percpu(base_addr, off, ptr), with interrupts off.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/percpu_free_percpu")]
pub fn percpu_free(context: *mut c_void) -> i32 {
    freed(Arguments(context.cast()).get(2), true);
    0
}

/// free_vmap_area_noflush(va_start, nr_lazy, nr_lazy_max)
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/free_vmap_area_noflush")]
pub fn vmap_free(context: *mut c_void) -> i32 {
    freed(Arguments(context.cast()).get(0), true);
    0
}
