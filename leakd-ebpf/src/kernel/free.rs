//! Raw tracepoints where the kernel takes memory back.
//!
//! An interrupt that comes while a program runs does not run that same program:
//! with hundreds of packets to free, that would be hundreds of blocks that seem
//! to leak. So a second program stands behind each one that interrupts may
//! reach; it finds what the first one missed.

use crate::{
    Arguments, filter,
    ledger::{count, freed},
};
use core::ffi::c_void;
use leakd_common::target::Counter;

/// kfree(call_site, ptr)
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/kfree")]
pub fn kfree(context: *mut c_void) -> i32 {
    let address = Arguments(context.cast()).get(1);
    if address != 0 {
        freed(address, true);
    }
    0
}

/// As [`kfree`], once more.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/kfree")]
pub fn kfree_again(context: *mut c_void) -> i32 {
    freed(Arguments(context.cast()).get(1), false);
    0
}

/// kmem_cache_free(call_site, ptr, cache)
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/kmem_cache_free")]
pub fn cache_free(context: *mut c_void) -> i32 {
    let arguments = Arguments(context.cast());
    if filter::may_hold(arguments.get(2)) {
        freed(arguments.get(1), true);
    } else {
        count(Counter::Filtered);
    }
    0
}

/// As [`cache_free`], once more.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/kmem_cache_free")]
pub fn cache_free_again(context: *mut c_void) -> i32 {
    let arguments = Arguments(context.cast());
    if filter::may_hold(arguments.get(2)) {
        freed(arguments.get(1), false);
    }
    0
}

/// mm_page_free(page, order)
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/mm_page_free")]
pub fn page_free(context: *mut c_void) -> i32 {
    freed(Arguments(context.cast()).get(0), true);
    0
}

/// As [`page_free`], once more.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/mm_page_free")]
pub fn page_free_again(context: *mut c_void) -> i32 {
    freed(Arguments(context.cast()).get(0), false);
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
