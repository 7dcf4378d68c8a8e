//! Page faults that the code of targets takes: what touches memory for the
//! first time, and so makes a process's resident memory grow.
//!
//! Loaded only when asked for: the tracepoint is passed by every process of
//! the machine.

use crate::{
    allocator::no_private_stack,
    ledger::{TARGETS, count},
    lifecycle::slot_of,
    registers::Registers,
    ring::{self, NotAnnounced},
    support::{add, opaque},
    unwind::{self, Walk},
};
use aya_ebpf::{
    EbpfContext,
    bindings::pt_regs,
    btf_maps::{HashMap, ProgramArray},
    helpers::{bpf_get_current_pid_tgid, generated as helper},
    macros::{btf_map, raw_tracepoint},
    programs::RawTracePointContext,
};
use leakd_common::{
    event::EventKind,
    page_fault::{PAGE_FAULT_SITES, PageFaultKey, PageFaultSite},
    target::Counter,
};

const NO_PREALLOC: usize = 1; // BPF_F_NO_PREALLOC

/// The call sites of all targets.
#[btf_map]
static PAGE_FAULTS: HashMap<PageFaultKey, PageFaultSite, PAGE_FAULT_SITES, NO_PREALLOC> =
    HashMap::new();
#[btf_map]
static NO_STACK_PAGE_FAULT: ProgramArray<1> = ProgramArray::new();

/// User code has touched a page that is not there.
#[raw_tracepoint(tracepoint = "page_fault_user")]
pub fn page_fault_user(context: RawTracePointContext) -> i32 {
    let ids = bpf_get_current_pid_tgid();
    no_private_stack!(context.as_ptr(), ids == u64::MAX, NO_STACK_PAGE_FAULT);
    let tgid = (ids >> 32) as u32;
    let Some(slot) = slot_of(tgid) else { return 0 };
    let Some(config) = TARGETS.get(slot) else { return 0 };
    if config.paused != 0 {
        return 0;
    }
    let epoch = config.epoch;
    let Some(start) = at_fault(tgid, epoch) else { return 0 };
    let site = {
        let mut walk = start;
        unwind::walk(&mut walk);
        opaque(walk.hash)
    };
    let key = PageFaultKey { slot, reserved: 0, site };
    let Some(totals) = find_or_make(&key, epoch) else {
        count(slot, Counter::LostPageFaults);
        return 0;
    };
    // SAFETY: a value of a hash map, whose elements outlive the program.
    let announced = unsafe {
        add(&raw mut (*totals).faults, 1);
        (*totals).announced
    };
    if announced == 0 {
        match ring::announce_stack(EventKind::PageFaultStack, slot, site, start, ids, epoch) {
            // SAFETY: as above.
            Ok(_) => unsafe { (*totals).announced = 1 },
            Err(NotAnnounced::Changed) => {}
            Err(NotAnnounced::NoRoom) => count(slot, Counter::RingFull),
        }
    }
    0
}

/// The registers of the user code that has faulted, as they were when it
/// entered the kernel.
#[inline(always)]
fn at_fault(tgid: u32, epoch: u32) -> Option<Walk> {
    // SAFETY: neither helper has preconditions but that the task is one; the
    // verifier knows both results by their BTF types and checks the fields that
    // are read from them.
    unsafe {
        let task = helper::bpf_get_current_task_btf();
        let registers = helper::bpf_task_pt_regs(task) as *const pt_regs;
        if registers.is_null() {
            return None;
        }
        let (instruction, stack, frame_pointer) = Registers::of_task(registers);
        Some(Walk::at_instruction(instruction, stack, frame_pointer, tgid, epoch))
    }
}

#[inline(always)]
fn find_or_make(key: &PageFaultKey, epoch: u32) -> Option<*mut PageFaultSite> {
    if let Some(site) = PAGE_FAULTS.get_ptr_mut(key) {
        return Some(site);
    }
    // A lost race is no error: the other one's is found.
    let _ = PAGE_FAULTS.insert(key, PageFaultSite { faults: 0, announced: 0, epoch }, 1);
    PAGE_FAULTS.get_ptr_mut(key)
}
