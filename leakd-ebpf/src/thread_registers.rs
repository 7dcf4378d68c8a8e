//! The registers of a process's threads, as they were when each entered the
//! kernel: those of a thread that does not run, without stopping it.
//!
//! Loaded only for a scan. An iterator has no private stack, whatever its frame
//! (kernel/bpf/verifier.c, `bpf_enable_priv_stack`).

use aya_ebpf::{
    bindings::{pt_regs, seq_file, task_struct},
    helpers::generated as helper,
};
use core::{ffi::c_void, ptr::read_volatile};
use leakd_common::thread::REGISTER_WORDS;

/// `struct bpf_iter_meta`.
#[repr(C)]
pub struct Meta {
    sequence: *mut seq_file,
}

/// `struct bpf_iter__task`.
#[repr(C)]
pub struct TaskContext {
    meta: *const Meta,
    task: *mut task_struct,
}

/// For each thread: its registers, as the kernel lays them out.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub fn thread_registers(context: *mut TaskContext) -> i32 {
    // SAFETY: the kernel hands over a valid context. The verifier knows the task,
    // the registers and the sequence by their BTF types and checks what is read;
    // that is done once for each word, in order, so that offsets are constants.
    unsafe {
        let task = read_volatile(&raw const (*context).task);
        if task.is_null() {
            return 0;
        }
        let registers = helper::bpf_task_pt_regs(task) as *const pt_regs;
        if registers.is_null() {
            return 0;
        }
        let from = registers.cast::<u64>();
        let mut words = [0u64; REGISTER_WORDS];
        macro_rules! copy {
            ($($number:literal)*) => { $(words[$number] = read_volatile(from.add($number));)* };
        }
        copy!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20);
        let sequence =
            read_volatile(&raw const (*read_volatile(&raw const (*context).meta)).sequence);
        // Where there is no room the kernel comes again.
        helper::bpf_seq_write(
            sequence,
            words.as_ptr().cast::<c_void>(),
            size_of_val(&words) as u32,
        );
    }
    0
}
