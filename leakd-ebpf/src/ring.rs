//! One ring buffer a CPU, for what is rare: new stacks and the life of
//! processes. Never an event for each malloc.

use crate::unwind::{self, Walk};
use aya_ebpf::{
    btf_maps::{ArrayOfMaps, RingBuf},
    helpers::generated as helper,
    macros::btf_map,
};
use core::ffi::c_void;
use leakd_common::event::{EventKind, StackRecord};

/// Most CPUs that a machine may number.
const CPUS: usize = 1024;
/// Bytes of a ring in this object's type; user space makes them as large as
/// it likes.
const RING_BYTES: usize = 256 << 10;
/// A reader is woken early once this many bytes wait; else it polls. The
/// default, a wake-up for each record, costs 10 us a record.
const WAKE_BYTES: u64 = 16 << 10;

const NO_WAKEUP: u64 = 1; // BPF_RB_NO_WAKEUP
const FORCE_WAKEUP: u64 = 2; // BPF_RB_FORCE_WAKEUP

#[btf_map]
static RINGS: ArrayOfMaps<RingBuf<StackRecord, RING_BYTES>, CPUS> = ArrayOfMaps::new();

/// This CPU's ring, if user space has made one.
#[inline(always)]
pub fn current() -> Option<&'static RingBuf<StackRecord, RING_BYTES>> {
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { helper::bpf_get_smp_processor_id() };
    RINGS.get(cpu)
}

/// Why a stack was not announced.
#[derive(Clone, Copy)]
pub enum NotAnnounced {
    /// The ring has no room.
    NoRoom,
    /// User space has changed the tables since the walk that gave the site's key, so
    /// that this one came to another stack.
    Changed,
}

/// Walks a stack into this CPU's ring; gives the number of the `StackEnd`. `hash` is
/// what the same walk came to before: the site's key.
#[inline(always)]
pub fn announce_stack(
    kind: EventKind,
    slot: u32,
    hash: u64,
    mut walk: Walk,
    ids: u64,
    epoch: u32,
) -> Result<u32, NotAnnounced> {
    let ring = current().ok_or(NotAnnounced::NoRoom)?;
    let mut entry = ring.reserve_untyped::<StackRecord>(0).ok_or(NotAnnounced::NoRoom)?;
    let record = entry.as_mut_ptr();
    // SAFETY: the record is ours until it is submitted; every field is written
    // here, and frames up to `depth`, which the reader keeps to.
    unsafe {
        (*record).kind = kind as u32;
        (*record).slot = slot;
        (*record).site = hash;
        (*record).tgid = (ids >> 32) as u32;
        (*record).tid = ids as u32;
        (*record).epoch = epoch;
        // Before the walk: what changes from here on may mislead it.
        (*record).time_ns = helper::bpf_ktime_get_ns();
        unwind::walk_into(&mut walk, &raw mut (*record).frames);
        (*record).end = walk.end;
        (*record).depth = walk.depth;
        (*record).frame_pointer_steps = walk.frame_pointer_steps;
    }
    if walk.hash != hash {
        entry.discard(NO_WAKEUP);
        return Err(NotAnnounced::Changed);
    }
    let end = walk.end;
    entry.submit(wake_flag(ring));
    Ok(end)
}

/// The wake-up flag for a record that is about to be submitted.
#[inline(always)]
fn wake_flag(ring: &RingBuf<StackRecord, RING_BYTES>) -> u64 {
    let ring = core::ptr::from_ref(ring).cast_mut().cast::<c_void>();
    // SAFETY: `ring` is a ring buffer map; query 0 is BPF_RB_AVAIL_DATA.
    if unsafe { helper::bpf_ringbuf_query(ring, 0) } > WAKE_BYTES {
        FORCE_WAKEUP
    } else {
        NO_WAKEUP
    }
}
