//! The kernel's stack, and its hash.
//!
//! An interrupt comes on top of whatever ran: with that, each of its call
//! sites would be there a thousand times. Its stack ends at its entry.

use crate::ledger::count;
use aya_ebpf::{Global, btf_maps::PerCpuArray, helpers::generated as helper, macros::btf_map};
use core::ffi::c_void;
use leakd_common::{
    kernel::{FLAG_INTERRUPT, KERNEL_FRAMES, mix},
    target::Counter,
};

/// Where the code lies that interrupts begin with: first address and length in
/// bytes of their entries, and of the function that runs soft interrupts.
#[unsafe(no_mangle)]
static INTERRUPT_BEGIN: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static INTERRUPT_BYTES: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static SOFT_INTERRUPT_BEGIN: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static SOFT_INTERRUPT_BYTES: Global<u64> = Global::new(0);

/// Programs that walk stacks.
pub const WALKERS: usize = 8;

/// A walked stack.
#[repr(C)]
pub struct Stack {
    pub frames: [u64; KERNEL_FRAMES],
}

/// Room for a stack of each program. A program cannot be interrupted by itself:
/// the kernel would leave it out.
#[btf_map]
static STACKS: PerCpuArray<Stack, WALKERS> = PerCpuArray::new();

/// A stack that lies in this CPU's room.
#[derive(Clone, Copy)]
pub struct Walked {
    pub stack: *const Stack,
    pub depth: u32,
    pub flags: u32,
    pub hash: u64,
}

/// Walks the stack that led to a program.
#[inline(always)]
pub fn walk(context: *mut c_void, walker: u32, seed: u64) -> Option<Walked> {
    let stack = STACKS.get_ptr_mut(walker)?;
    // SAFETY: the helper writes at most the bytes given.
    let bytes = unsafe {
        helper::bpf_get_stack(
            context,
            (&raw mut (*stack).frames).cast::<c_void>(),
            (KERNEL_FRAMES * 8) as u32,
            0,
        )
    };
    if bytes <= 0 {
        count(Counter::StacksIncomplete);
    }
    let walked = if bytes <= 0 { 0 } else { bytes as usize / 8 };
    let (interrupt, interrupt_bytes) = (INTERRUPT_BEGIN.load(), INTERRUPT_BYTES.load());
    let (soft, soft_bytes) = (SOFT_INTERRUPT_BEGIN.load(), SOFT_INTERRUPT_BYTES.load());
    let (mut depth, mut flags, mut hash) = (0, 0, seed);
    while depth < KERNEL_FRAMES && depth < walked {
        // SAFETY: below KERNEL_FRAMES.
        let frame = unsafe { *(&raw const (*stack).frames).cast::<u64>().add(depth) };
        hash = mix(hash, frame);
        depth += 1;
        if frame.wrapping_sub(interrupt) < interrupt_bytes || frame.wrapping_sub(soft) < soft_bytes
        {
            flags = FLAG_INTERRUPT;
            break;
        }
    }
    Some(Walked { stack, depth: depth as u32, flags, hash })
}
