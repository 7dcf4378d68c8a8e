//! The kernel's stack, and its hash.
//!
//! An interrupt comes on top of whatever ran: with that, each of its call
//! sites would be there a thousand times. Its stack ends at its entry.

use crate::{ledger::count, support::opaque};
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

/// Frames that are walked at first: each takes the kernel some 40 ns. Most
/// stacks are no deeper, or come to an interrupt's entry within these, and what
/// it interrupted need not be walked.
const FIRST: usize = 24;

/// Walks the stack that led to a program.
#[inline(always)]
pub fn walk(context: *mut c_void, walker: u32, seed: u64) -> Option<Walked> {
    let stack = STACKS.get_ptr_mut(walker)?;
    let walked = read_frames::<FIRST>(context, stack);
    let (hash, depth, flags) = hash_frames::<0, FIRST>(stack, walked, seed);
    if depth < FIRST || flags != 0 {
        if depth == 0 {
            count(Counter::StacksIncomplete);
        }
        return Some(Walked { stack, depth: depth as u32, flags, hash });
    }
    let walked = read_frames::<KERNEL_FRAMES>(context, stack);
    let (hash, depth, flags) = hash_frames::<FIRST, KERNEL_FRAMES>(stack, walked, hash);
    Some(Walked { stack, depth: depth as u32, flags, hash })
}

/// Has the kernel walk so many frames at most; gives how many it found.
#[inline(always)]
fn read_frames<const MOST: usize>(context: *mut c_void, stack: *mut Stack) -> usize {
    // SAFETY: the helper writes at most the bytes given, which are no more than
    // the stack has.
    let bytes = unsafe {
        let frames = (&raw mut (*stack).frames).cast::<c_void>();
        helper::bpf_get_stack(context, frames, (MOST * 8) as u32, 0)
    };
    if bytes <= 0 { 0 } else { bytes as usize / 8 }
}

/// Adds frames to a hash, from one up to another, of those that were found; ends
/// behind the entry of an interrupt. Gives hash, depth and flags.
#[inline(always)]
fn hash_frames<const FROM: usize, const TO: usize>(
    stack: *const Stack,
    walked: usize,
    mut hash: u64,
) -> (u64, usize, u32) {
    let (interrupt, interrupt_bytes) = (INTERRUPT_BEGIN.load(), INTERRUPT_BYTES.load());
    let (soft, soft_bytes) = (SOFT_INTERRUPT_BEGIN.load(), SOFT_INTERRUPT_BYTES.load());
    let mut depth = FROM;
    // The compiler must not make one bound of the two and compare for equality:
    // the verifier of 6.1 does not follow that.
    while depth < TO && depth < opaque(walked) {
        // SAFETY: below KERNEL_FRAMES.
        let frame = unsafe { *(&raw const (*stack).frames).cast::<u64>().add(depth) };
        hash = mix(hash, frame);
        depth += 1;
        if frame.wrapping_sub(interrupt) < interrupt_bytes || frame.wrapping_sub(soft) < soft_bytes
        {
            return (hash, depth, FLAG_INTERRUPT);
        }
    }
    (hash, depth, 0)
}
