//! Outstanding blocks of the kernel by address, whoever handed them out: an skb
//! head comes from a cache of its own and goes by kfree.

use crate::{
    filter::{self, Name},
    recall::Way,
    stack::{self, Walked},
    support::{add, opaque},
};
use aya_ebpf::{
    btf_maps::{Array, HashMap, PerCpuArray, RingBuf},
    helpers::generated as helper,
    macros::btf_map,
};
use core::ffi::c_void;
use leakd_common::{
    block::Block,
    kernel::{
        FLAG_INTERRUPT, KERNEL_BLOCKS, KERNEL_FRAMES, KERNEL_SITES, KernelKind, KernelSite,
        KernelStackRecord, mix,
    },
    site::{LIFETIME_BUCKETS, OVERFLOW_SITE, Site},
    target::{Counter, TargetCounters},
};

const E2BIG: i32 = 7;
const NOEXIST: u64 = 1; // BPF_NOEXIST
/// Nobody waits for a ring of this object: it is looked into now and then.
const NO_WAKEUP: u64 = 1; // BPF_RB_NO_WAKEUP

#[btf_map]
static COUNTERS: PerCpuArray<TargetCounters, 1> = PerCpuArray::new();
#[btf_map]
static BLOCKS: HashMap<u64, Block, { KERNEL_BLOCKS as usize }> = HashMap::new();
#[btf_map]
static SITES: HashMap<u64, KernelSite, { KERNEL_SITES as usize }> = HashMap::new();
#[btf_map]
static RING: RingBuf<KernelStackRecord, { 1 << 20 }> = RingBuf::new();

/// What a new site starts from: too much for the BPF stack.
#[unsafe(no_mangle)]
static EMPTY_SITE: KernelSite = KernelSite::EMPTY;

/// Adds 1 to a counter.
#[inline(always)]
pub fn count(counter: Counter) {
    count_by(counter, 1);
}

/// Adds to a counter.
#[inline(always)]
pub fn count_by(counter: Counter, value: u64) {
    if let Some(counters) = COUNTERS.get_ptr_mut(0) {
        // SAFETY: the index is a constant below COUNTERS' length.
        unsafe { add(&raw mut (*counters).counts[counter as usize], value) };
    }
}

/// Counts a block that is left out. Most events of a restricted trace end here, and
/// what the count is for, the price of tracing, need not be exact: an interrupt in
/// between may lose one, but no atomic has to be paid for.
#[inline(always)]
pub fn count_left_out() {
    if let Some(counters) = COUNTERS.get_ptr_mut(0) {
        // SAFETY: the index is a constant below COUNTERS' length; the values are this
        // CPU's.
        unsafe {
            let left_out = &raw mut (*counters).counts[Counter::Filtered as usize];
            left_out.write_volatile(left_out.read_volatile().wrapping_add(1));
        }
    }
}

/// A block that was handed out.
#[derive(Clone, Copy)]
pub struct Allocation {
    pub address: u64,
    /// What it takes, in bytes.
    pub bytes: u64,
    pub kind: KernelKind,
    /// The `struct kmem_cache`; 0: none.
    pub cache: u64,
    pub gfp: u32,
    /// Where the allocating function returns to; 0: not known.
    pub call_site: u64,
}

/// 1: blocks that are handed out are recorded. Not before everything is
/// attached: what leakd itself takes for that is nobody's leak.
#[btf_map]
static RECORDING: Array<u32, 1> = Array::new();

/// Puts a block that was handed out into the ledger.
#[inline(always)]
pub fn allocated(context: *mut c_void, walker: u32, allocation: &Allocation) {
    if RECORDING.get(0) != Some(&1) {
        return;
    }
    // SAFETY: the helper has no preconditions.
    let birth_ns = unsafe { helper::bpf_ktime_get_ns() };
    let seed = mix(allocation.cache, allocation.kind as u64);
    let way = Way::of(context, walker, seed, allocation.call_site);
    let mut hash = way.map_or(0, Way::recall);
    let mut walked = None;
    if hash == 0 || way.is_some_and(|way| way.is_checked(birth_ns)) {
        let Some(found) = stack::walk(context, walker, seed) else { return };
        if let Some(way) = way {
            if hash == 0 {
                way.remember(found);
            } else {
                way.checked(hash == found.hash);
            }
        }
        hash = found.hash;
        walked = Some(found);
    }
    let Some((key, site)) = find_or_make(hash) else { return };
    // SAFETY: as above.
    let ids = if hash as u32 & FLAG_INTERRUPT != 0 {
        0
    } else {
        unsafe { helper::bpf_get_current_pid_tgid() }
    };
    let block = Block {
        size_and_owner: Block::pack(allocation.bytes, 0),
        birth_ns,
        site: key,
        weight: 1,
        tid: (ids >> 32) as u32,
    };
    if !insert(allocation.address, &block) {
        return;
    }
    // SAFETY: `site` is a value of a map whose elements are never taken out.
    let (announced, task) = unsafe {
        add(&raw mut (*site).totals.allocated_blocks, 1);
        add(&raw mut (*site).totals.allocated_bytes, allocation.bytes);
        (*site).gfp = allocation.gfp;
        ((*site).totals.announced, (*site).task)
    };
    if task >> 32 != ids >> 32 {
        // SAFETY: as above; the helper writes 16 bytes.
        unsafe {
            (*site).task = ids;
            helper::bpf_get_current_comm((&raw mut (*site).comm).cast::<c_void>(), 16);
        }
    }
    if announced == 0 && key != OVERFLOW_SITE {
        // It was known again, and those who know its frames have forgotten them. Not in
        // a closure: that may become a function, with a frame of its own.
        if walked.is_none() {
            walked = stack::walk(context, walker, seed);
        }
        if let Some(walked) = walked
            && walked.hash == hash
        {
            announce(key, site, allocation, walked);
        }
    }
}

/// Takes a block out of the ledger. `first`: this is the first program at its
/// tracepoint; a second one has a look at what that one missed.
#[inline(always)]
pub fn freed(address: u64, first: bool) {
    // SAFETY: the value is copied at once; whoever removes the block accounts
    // for it.
    let Some(block) = (unsafe { BLOCKS.get(address).copied() }) else {
        if first {
            count(Counter::UnknownFrees);
        }
        return;
    };
    if BLOCKS.remove(address).is_err() {
        return;
    }
    count(Counter::Removed);
    if !first {
        count(Counter::SecondLook);
    }
    let Some(site) = SITES.get_ptr_mut(block.site) else { return };
    // SAFETY: the helper has no preconditions.
    let now = unsafe { helper::bpf_ktime_get_ns() };
    // The verifier does not see that a bucket is below the bound.
    let bucket = opaque(Site::bucket(now.wrapping_sub(block.birth_ns))) & (LIFETIME_BUCKETS - 1);
    // SAFETY: elements of SITES are never taken out; the bucket is within.
    unsafe {
        add(&raw mut (*site).totals.freed_blocks, 1);
        add(&raw mut (*site).totals.freed_bytes, block.size());
        add((&raw mut (*site).totals.lifetimes).cast::<u64>().add(bucket), 1);
    }
}

/// Puts a block in; false if it was lost, which is then counted.
#[inline(always)]
fn insert(address: u64, block: &Block) -> bool {
    let mut status = BLOCKS.insert(address, block, NOEXIST);
    if status.is_err() {
        reused(address);
        status = BLOCKS.insert(address, block, 0);
    }
    let Err(error) = status else {
        count(Counter::Inserted);
        return true;
    };
    let full = error == -E2BIG;
    count(if full { Counter::LostLedgerFull } else { Counter::LostNoMemory });
    count_by(Counter::LostBytes, block.size());
    false
}

/// The address is taken: that block must have been freed in a way that has no
/// probe (in bulk, say). When, nobody knows.
#[inline(always)]
fn reused(address: u64) {
    // SAFETY: the value is copied at once.
    let Some(block) = (unsafe { BLOCKS.get(address).copied() }) else { return };
    if BLOCKS.remove(address).is_err() {
        return;
    }
    count(Counter::Removed);
    count(Counter::Reused);
    let Some(site) = SITES.get_ptr_mut(block.site) else { return };
    // SAFETY: elements of SITES are never taken out.
    unsafe {
        add(&raw mut (*site).totals.freed_blocks, 1);
        add(&raw mut (*site).totals.freed_bytes, block.size());
        add(&raw mut (*site).reused, 1);
    }
}

/// The site with this key, made if need be. Where there is no room, the
/// overflow site, which user space makes beforehand.
#[inline(always)]
fn find_or_make(key: u64) -> Option<(u64, *mut KernelSite)> {
    if let Some(site) = SITES.get_ptr_mut(key) {
        return Some((key, site));
    }
    // A lost race is no error: the other one's site is found.
    let empty = &EMPTY_SITE;
    let _ = SITES.insert(key, empty, NOEXIST);
    if let Some(site) = SITES.get_ptr_mut(key) {
        return Some((key, site));
    }
    count(Counter::SitesFull);
    SITES.get_ptr_mut(OVERFLOW_SITE).map(|site| (OVERFLOW_SITE, site))
}

/// Tells user space of a site. Should the ring be full, the next allocation
/// here tries again.
#[inline(always)]
fn announce(key: u64, site: *mut KernelSite, allocation: &Allocation, walked: Walked) {
    let Some(mut entry) = RING.reserve_untyped::<KernelStackRecord>(0) else {
        count(Counter::RingFull);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the record is ours until it is submitted, and each of its fields
    // is written; the stack's room is this program's while it runs.
    unsafe {
        (*site).kind = allocation.kind as u32;
        (*record).site = key;
        (*record).call_site = allocation.call_site;
        (*record).kind = allocation.kind as u32;
        (*record).depth = walked.depth;
        (*record).flags = walked.hash as u32 & FLAG_INTERRUPT;
        (*record).reserved = 0;
        let name = (&raw mut (*record).cache).cast::<Name>();
        *name = [0; size_of::<Name>() / 8];
        if allocation.cache != 0 {
            filter::read_name(allocation.cache, name);
        }
        helper::bpf_probe_read_kernel(
            (&raw mut (*record).frames).cast::<c_void>(),
            (KERNEL_FRAMES * 8) as u32,
            walked.stack.cast::<c_void>(),
        );
        (*site).totals.announced = 1;
    }
    entry.submit(NO_WAKEUP);
}
