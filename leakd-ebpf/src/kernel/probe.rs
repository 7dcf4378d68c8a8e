//! Probes on functions of the kernel, for what it has no tracepoint for.

use crate::{
    filter::read,
    ledger::{Allocation, allocated, count, count_left_out, freed},
    support::opaque,
};
use aya_ebpf::{
    Global,
    programs::{ProbeContext, RetProbeContext},
};
use core::ffi::c_void;
use leakd_common::{kernel::KernelKind, target::Counter};

/// Blocks that are given back in one call, at most: kfree_rcu collects as many
/// as fit into a page.
const MOST_BULK: u64 = 512;
/// Values from here on are errors, not addresses (IS_ERR_VALUE).
const ERRORS: u64 = -4095i64 as u64;

/// Where `struct vmap_area` has its `va_start` and `va_end`.
#[unsafe(no_mangle)]
static AREA_START_OFFSET: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static AREA_END_OFFSET: Global<u32> = Global::new(0);

/// kmem_cache_free_bulk(cache, count, blocks); kfree_bulk calls it, too.
#[unsafe(no_mangle)]
#[unsafe(link_section = "kprobe")]
pub fn bulk_free(context: *mut c_void) -> i32 {
    let context = ProbeContext::new(context);
    let (Some(blocks), Some(list)) = (context.arg::<u64>(1), context.arg::<u64>(2)) else {
        return 0;
    };
    for index in 0..MOST_BULK {
        if index >= blocks {
            break;
        }
        opaque(free_listed(list + index * 8));
    }
    0
}

/// Takes the block out whose address is to be read here. A global function: the
/// verifier looks at it once, and not 512 times over.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn free_listed(place: u64) -> u64 {
    if let Some(address) = read::<u64>(place) {
        freed(address, true);
    }
    0
}

/// kvfree_call_rcu(head, block): from here on nobody will give it back but the
/// kernel itself, when readers have gone.
#[unsafe(no_mangle)]
#[unsafe(link_section = "kprobe")]
pub fn rcu_free(context: *mut c_void) -> i32 {
    if let Some(address) = ProbeContext::new(context).arg::<u64>(1) {
        // Where it ends in a kfree, that one counts as unknown, not this.
        freed(address, false);
    }
    0
}

/// alloc_vmap_area(...) -> struct vmap_area *
#[unsafe(no_mangle)]
#[unsafe(link_section = "kretprobe")]
pub fn vmap_alloc_return(context: *mut c_void) -> i32 {
    let area: u64 = RetProbeContext::new(context).ret();
    if area == 0 || area >= ERRORS {
        count(Counter::Failed);
        return 0;
    }
    let start = read::<u64>(area + u64::from(AREA_START_OFFSET.load()));
    let end = read::<u64>(area + u64::from(AREA_END_OFFSET.load()));
    let (Some(address), Some(end)) = (start, end) else { return 0 };
    let bytes = end.wrapping_sub(address);
    if !crate::filter::wants_size(bytes) {
        count_left_out();
        return 0;
    }
    let kind = KernelKind::Vmalloc;
    let allocation = Allocation { address, bytes, kind, cache: 0, gfp: 0, call_site: 0 };
    allocated(context, 5, &allocation);
    0
}

/// free_vmap_area_noflush(struct vmap_area *)
#[unsafe(no_mangle)]
#[unsafe(link_section = "kprobe")]
pub fn vmap_free_probe(context: *mut c_void) -> i32 {
    let Some(area) = ProbeContext::new(context).arg::<u64>(0) else { return 0 };
    if let Some(address) = read::<u64>(area + u64::from(AREA_START_OFFSET.load())) {
        freed(address, true);
    }
    0
}
