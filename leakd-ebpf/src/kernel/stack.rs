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
/// From this one on they are probes on functions; those before, at tracepoints.
const PROBES: u32 = 5;
/// Frames at the inner end of a tracepoint's stack that are not hashed, those of the
/// program and of what runs it: the kernel calls a program from another place while it
/// takes statistics.
const OWN_FRAMES: usize = 2;

/// A walked stack.
#[repr(C)]
pub struct Stack {
    pub frames: [u64; KERNEL_FRAMES],
    /// Of the frames so far.
    hash: u64,
}

/// Room for a stack of each program. A program cannot be interrupted by itself:
/// the kernel would leave it out.
#[btf_map]
static STACKS: PerCpuArray<Stack, WALKERS> = PerCpuArray::new();

/// A stack that lies in this CPU's room.
#[derive(Clone, Copy)]
pub struct Walked {
    pub stack: *mut Stack,
    pub depth: u32,
    /// [`FLAG_INTERRUPT`] is set in it if an interrupt allocated, and only then.
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
    // SAFETY: a word of this program's own room.
    unsafe { (*stack).hash = seed };
    let found = read_frames::<FIRST>(context, stack);
    let (mut depth, mut flags) = hashed(if walker < PROBES {
        hash_first(stack, found)
    } else {
        hash_probe_first(stack, found)
    });
    if depth >= FIRST as u32 && flags == 0 {
        let found = read_frames::<KERNEL_FRAMES>(context, stack);
        let (whole, its_flags) = hashed(hash_rest(stack, found));
        // The kernel may have no room for a second walk.
        if whole != 0 {
            (depth, flags) = (whole, its_flags);
        }
    }
    if depth == 0 {
        count(Counter::StacksIncomplete);
    }
    // SAFETY: as above.
    let hash = unsafe { (*stack).hash } & !u64::from(FLAG_INTERRUPT);
    Some(Walked { stack, depth, hash: hash | u64::from(flags) })
}

/// What a global function says: depth, and flags above it. The verifier is to know
/// nothing of either.
#[inline(always)]
fn hashed(result: u64) -> (u32, u32) {
    let result = opaque(result);
    (result as u32, (result >> 32) as u32)
}

/// Hashes the frames that are walked at first. A global function, so that the
/// verifier goes on behind it once, and not once for each depth: that was 50,000
/// instructions in each program on 6.1.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn hash_first(stack: *mut Stack, found: u64) -> u64 {
    hash_frames::<OWN_FRAMES, FIRST>(stack, found)
}

/// The same for a probe on a function.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn hash_probe_first(stack: *mut Stack, found: u64) -> u64 {
    hash_frames::<0, FIRST>(stack, found)
}

/// The rest of them.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn hash_rest(stack: *mut Stack, found: u64) -> u64 {
    hash_frames::<FIRST, KERNEL_FRAMES>(stack, found)
}

/// Has the kernel walk so many frames at most; gives how many it found.
#[inline(always)]
fn read_frames<const MOST: usize>(context: *mut c_void, stack: *mut Stack) -> u64 {
    // SAFETY: the helper writes at most the bytes given, which are no more than
    // the stack has.
    let bytes = unsafe {
        let frames = (&raw mut (*stack).frames).cast::<c_void>();
        helper::bpf_get_stack(context, frames, (MOST * 8) as u32, 0)
    };
    if bytes <= 0 { 0 } else { bytes as u64 / 8 }
}

/// Adds frames to the hash, from one up to another, of those that were found; ends
/// behind the entry of an interrupt. Gives the depth, with the flags above it; 0 if too
/// few were found.
#[inline(always)]
fn hash_frames<const FROM: usize, const TO: usize>(stack: *mut Stack, found: u64) -> u64 {
    if stack.is_null() || found < FROM as u64 {
        return 0;
    }
    // SAFETY: not null, and the verifier checks that it is a whole Stack.
    let stack = unsafe { &mut *stack };
    let (interrupt, interrupt_bytes) = (INTERRUPT_BEGIN.load(), INTERRUPT_BYTES.load());
    let (soft, soft_bytes) = (SOFT_INTERRUPT_BEGIN.load(), SOFT_INTERRUPT_BYTES.load());
    let mut hash = stack.hash;
    let mut depth = FROM;
    let mut flags = 0;
    // The compiler must not make one bound of the two and compare for equality:
    // the verifier of 6.1 does not follow that.
    while depth < TO && (depth as u64) < opaque(found) {
        // SAFETY: below KERNEL_FRAMES.
        let frame = unsafe { *(&raw const stack.frames).cast::<u64>().add(depth) };
        hash = mix(hash, frame);
        depth += 1;
        if frame.wrapping_sub(interrupt) < interrupt_bytes || frame.wrapping_sub(soft) < soft_bytes
        {
            flags = FLAG_INTERRUPT;
            break;
        }
    }
    stack.hash = hash;
    u64::from(flags) << 32 | depth as u64
}
