//! The life of targets: fork, exec, thread exit.
//!
//! A process's end is seen by user space through its pidfd.
//!
//! These are raw tracepoints, not events of the tracing file system: the kernel
//! runs no program at such an event while it works at any BPF map for a system
//! call on that CPU (`bpf_prog_active`, trace_call_bpf), and where it can be
//! preempted in that, others run there meanwhile. An exec that goes unseen mixes
//! the memory of two programs.
//!
//! These programs run seldom, so they say what they do (aya-log), where user
//! space has set a level; the verifier removes what is below it. The programs of
//! the hot paths never say anything: they count.

use crate::{allocator::THREADS, ledger::TARGETS, ring};
use aya_ebpf::{
    btf_maps::HashMap,
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_kernel, generated::bpf_ktime_get_ns},
    macros::{btf_map, raw_tracepoint},
    programs::RawTracePointContext,
};
use aya_log_ebpf::{debug, warn};
use leakd_common::event::{EventKind, ProcessRecord};

/// The slot of each traced process, by tgid.
#[btf_map]
static SLOTS: HashMap<u32, u32, 1024> = HashMap::new();

/// Where `struct task_struct` has its `pid`: user space takes it from the
/// kernel's own types, since it differs between kernels.
#[unsafe(no_mangle)]
static TASK_PID_OFFSET: aya_ebpf::Global<u32> = aya_ebpf::Global::new(0);

/// The slot of a process, if it is traced.
#[inline(always)]
pub fn slot_of(tgid: u32) -> Option<u32> {
    // SAFETY: the value is copied at once; slots change only from user space.
    unsafe { SLOTS.get(tgid).copied() }
}

#[inline(always)]
fn announce(
    context: &RawTracePointContext,
    kind: EventKind,
    slot: u32,
    tgid: u32,
    child: u32,
    epoch: u32,
) {
    let Some(ring) = ring::current() else { return };
    // SAFETY: the helper has no preconditions.
    let time_ns = unsafe { bpf_ktime_get_ns() };
    let record =
        ProcessRecord { kind: kind as u32, slot, tgid, child, epoch, reserved: 0, time_ns };
    // Rare and wanted at once: wake the reader. An exec is found out where the
    // ring is full, too: user space compares epochs.
    if ring.output_untyped::<ProcessRecord>(record, 2).is_err() {
        warn!(context, "no room to announce event {} of target {}", kind as u32, tgid);
    }
}

/// A target (or a thread of it) made a thread or a process. Attached only where
/// these are to be followed.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn process_fork(context: RawTracePointContext) -> i32 {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let Some(slot) = slot_of(tgid) else { return 0 };
    let Some(config) = TARGETS.get(slot) else { return 0 };
    // Its arguments are the parent and the child.
    let task: *const u8 = context.arg(1);
    // SAFETY: the helper checks what it reads.
    let child = unsafe {
        bpf_probe_read_kernel(task.wrapping_add(TASK_PID_OFFSET.load() as usize).cast::<u32>())
    };
    if let Ok(child) = child {
        debug!(&context, "target {} in slot {} made {}", tgid, slot, child);
        announce(&context, EventKind::Fork, slot, tgid, child, config.epoch);
    }
    0
}

/// A target replaced its program image: what it had allocated is gone.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn process_exec(context: RawTracePointContext) -> i32 {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let Some(slot) = slot_of(tgid) else { return 0 };
    let Some(config) = TARGETS.get_ptr_mut(slot) else { return 0 };
    // SAFETY: one thread is left in a process that execs, and user space does
    // not write the epoch while a target is attached.
    let epoch = unsafe {
        (*config).epoch_began_ns = bpf_ktime_get_ns();
        (*config).epoch = (*config).epoch.wrapping_add(1);
        (*config).epoch
    };
    let _ = THREADS.remove(tgid);
    debug!(&context, "target {} in slot {} replaced its program: epoch {}", tgid, slot, epoch);
    announce(&context, EventKind::Exec, slot, tgid, 0, epoch);
    0
}

/// A thread ends: forget the call that it was in, also where its process is
/// not traced any more.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn process_exit(_context: RawTracePointContext) -> i32 {
    let _ = THREADS.remove(bpf_get_current_pid_tgid() as u32);
    0
}
