//! Raw tracepoints where the kernel hands memory out.
//!
//! User space has compared each one's arguments with the kernel's types before
//! it attaches a program.

use crate::{
    Arguments, filter,
    ledger::{Allocation, allocated, count, count_left_out},
};
use core::ffi::c_void;
use leakd_common::{kernel::KernelKind, target::Counter};

/// log2 of the bytes in a page.
const PAGE_SHIFT: u32 = 12;
/// Pages that the kernel may move or write to disk: user memory, page cache.
const GFP_MOVABLE: u32 = 1 << 3;

/// kmalloc(call_site, ptr, bytes_req, bytes_alloc, gfp, node)
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/kmalloc")]
pub fn kmalloc(context: *mut c_void) -> i32 {
    let arguments = Arguments(context.cast());
    let (address, bytes) = (arguments.get(1), arguments.get(3));
    if address == 0 {
        count(Counter::Failed);
        return 0;
    }
    if !filter::wants_size(bytes) {
        count_left_out();
        return 0;
    }
    let allocation = Allocation {
        address,
        bytes,
        kind: KernelKind::Kmalloc,
        cache: 0,
        gfp: arguments.get(4) as u32,
        call_site: arguments.get(0),
    };
    allocated(context, 0, &allocation);
    0
}

/// kmem_cache_alloc(call_site, ptr, cache, gfp, node)
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/kmem_cache_alloc")]
pub fn cache_alloc(context: *mut c_void) -> i32 {
    let arguments = Arguments(context.cast());
    let (address, cache) = (arguments.get(1), arguments.get(2));
    if !filter::wants_cache(cache) {
        count_left_out();
        return 0;
    }
    if address == 0 {
        count(Counter::Failed);
        return 0;
    }
    let bytes = filter::block_bytes(cache);
    if !filter::wants_size(bytes) {
        count_left_out();
        return 0;
    }
    let allocation = Allocation {
        address,
        bytes,
        kind: KernelKind::Cache,
        cache,
        gfp: arguments.get(3) as u32,
        call_site: arguments.get(0),
    };
    allocated(context, 1, &allocation);
    0
}

/// mm_page_alloc(page, order, gfp, migratetype)
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/mm_page_alloc")]
pub fn page_alloc(context: *mut c_void) -> i32 {
    let arguments = Arguments(context.cast());
    let (address, gfp) = (arguments.get(0), arguments.get(2) as u32);
    if gfp & GFP_MOVABLE != 0 {
        count(Counter::Movable);
        return 0;
    }
    if address == 0 {
        count(Counter::Failed);
        return 0;
    }
    let bytes = 1u64 << (PAGE_SHIFT + (arguments.get(1) as u32 & 31));
    if !filter::wants_size(bytes) {
        count_left_out();
        return 0;
    }
    let kind = KernelKind::Pages;
    let allocation = Allocation { address, bytes, kind, cache: 0, gfp, call_site: 0 };
    allocated(context, 2, &allocation);
    0
}

/// percpu_alloc_percpu(call_site, reserved, is_atomic, size, align, base_addr,
/// off, ptr, bytes_alloc, gfp)
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/percpu_alloc_percpu")]
pub fn percpu_alloc(context: *mut c_void) -> i32 {
    let arguments = Arguments(context.cast());
    let bytes = arguments.get(8);
    if !filter::wants_size(bytes) {
        count_left_out();
        return 0;
    }
    let allocation = Allocation {
        address: arguments.get(7),
        bytes,
        kind: KernelKind::PerCpu,
        cache: 0,
        gfp: arguments.get(9) as u32,
        call_site: arguments.get(0),
    };
    allocated(context, 3, &allocation);
    0
}

/// alloc_vmap_area(addr, size, align, vstart, vend, failed)
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/alloc_vmap_area")]
pub fn vmap_alloc(context: *mut c_void) -> i32 {
    let arguments = Arguments(context.cast());
    if arguments.get(5) as u32 != 0 {
        count(Counter::Failed);
        return 0;
    }
    let (address, bytes) = (arguments.get(0), arguments.get(1));
    if !filter::wants_size(bytes) {
        count_left_out();
        return 0;
    }
    let kind = KernelKind::Vmalloc;
    let allocation = Allocation { address, bytes, kind, cache: 0, gfp: 0, call_site: 0 };
    allocated(context, 4, &allocation);
    0
}
