//! The walk over a user stack, by the tables that user space makes from
//! .eh_frame (see `leakd_common::unwind`).
//!
//! The loop and its parts are global functions: the verifier looks at each
//! once, instead of at every path through 128 frames. State travels in a
//! [`Walk`] on the BPF stack, never in a per-CPU map, which a program that
//! preempts this one would overwrite.

mod mapping;
mod step;
mod table;

use crate::support::opaque;
use core::hint::black_box;
use leakd_common::event::{INSTRUCTION_FRAME, MAX_FRAMES, StackEnd};
use step::step;

/// Nothing went wrong so far; below every [`StackEnd`].
const GO_ON: u64 = 0;

/// The frames of a stack, as `StackRecord` has them.
pub type Frames = [u64; MAX_FRAMES];

/// The state of a walk: the frame it is at, and the mapping that it is in.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Walk {
    instruction: u64,
    stack: u64,
    frame_pointer: u64,
    /// The mapping that holds the frame; empty (1..0) before the first.
    begin: u64,
    end_of_mapping: u64,
    bias: u64,
    table: u32,
    /// 1: `instruction` is a return address, so the call is before it.
    is_return_address: u32,
    first_page: u32,
    pages: u32,
    row_cell: u32,
    tgid: u32,
    /// Hash over the frames.
    pub hash: u64,
    /// [`StackEnd`], once the walk is over.
    pub end: u32,
    /// Frames walked.
    pub depth: u32,
    /// Frames that were found by the frame pointer.
    pub frame_pointer_steps: u32,
    reserved: u32,
}

impl Walk {
    /// A walk that begins where a function has just returned to.
    #[inline(always)]
    pub fn at_return(
        instruction: u64,
        stack: u64,
        frame_pointer: u64,
        tgid: u32,
        seed: u32,
    ) -> Self {
        // Of zeros that it knows, LLVM makes a call of memset, whose loop goes
        // byte by byte.
        let zero = opaque(0u32);
        Self {
            instruction,
            stack,
            frame_pointer,
            begin: 1,
            end_of_mapping: zero.into(),
            bias: zero.into(),
            table: zero,
            is_return_address: 1,
            first_page: zero,
            pages: zero,
            row_cell: zero,
            tgid,
            hash: seed.into(),
            end: zero,
            depth: zero,
            frame_pointer_steps: zero,
            reserved: zero,
        }
    }

    /// A walk that begins at an instruction that has been interrupted.
    #[inline(always)]
    pub fn at_instruction(
        instruction: u64,
        stack: u64,
        frame_pointer: u64,
        tgid: u32,
        seed: u32,
    ) -> Self {
        let walk = Self::at_return(instruction, stack, frame_pointer, tgid, seed);
        Self { is_return_address: 0, ..walk }
    }
}

/// The frame that the walk is at, as `StackRecord` has it.
#[inline(always)]
fn frame(state: &Walk) -> u64 {
    const SHIFT: u32 = INSTRUCTION_FRAME.trailing_zeros();
    state.instruction | u64::from(!state.is_return_address & 1) << SHIFT
}

#[inline(always)]
fn mix(hash: u64, value: u64) -> u64 {
    let mixed = (hash ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ (mixed >> 29)
}

/// Walks to the end of the stack; leaves hash, depth and end in `walk`.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn walk(walk: *mut Walk) -> u64 {
    if walk.is_null() {
        return StackEnd::Internal as u64;
    }
    // SAFETY: not null, and the verifier checks that it is a whole Walk.
    let state = unsafe { &mut *walk };
    let mut end = StackEnd::Depth as u64;
    let mut depth = 0u32;
    while depth < MAX_FRAMES as u32 {
        state.hash = mix(state.hash, frame(state));
        depth += 1;
        let status = opaque(step(walk));
        if status != GO_ON {
            end = status;
            break;
        }
    }
    state.end = end as u32;
    state.depth = depth;
    0
}

/// The same walk, with what it passes kept in `frames`.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn walk_into(walk: *mut Walk, frames: *mut Frames) -> u64 {
    if walk.is_null() || frames.is_null() {
        return StackEnd::Internal as u64;
    }
    // SAFETY: not null, and the verifier checks that it is a whole Walk.
    let state = unsafe { &mut *walk };
    let mut end = StackEnd::Depth as u64;
    let mut depth = 0u32;
    while depth < MAX_FRAMES as u32 {
        state.hash = mix(state.hash, frame(state));
        // SAFETY: the verifier sees the mask, and that it is below MAX_FRAMES.
        unsafe { (*frames)[(black_box(depth) as usize) & (MAX_FRAMES - 1)] = frame(state) };
        depth += 1;
        let status = opaque(step(walk));
        if status != GO_ON {
            end = status;
            break;
        }
    }
    state.end = end as u32;
    state.depth = depth;
    0
}

/// Frames that lie between a call of an allocator and one inside it, at most.
const INNER_FRAMES: u32 = 32;

/// Walks outwards until the frame that has its return address at `frame`, or
/// past it: 1 if there is no such frame, 0 if there is or if the tables do not
/// lead so far.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn is_left(walk: *mut Walk, frame: u64) -> u64 {
    if walk.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier checks that it is a whole Walk.
    let state = unsafe { &mut *walk };
    let mut count = 0u32;
    while count < INNER_FRAMES {
        // A step by the frame pointer may skip frames.
        if opaque(step(walk)) != GO_ON || state.frame_pointer_steps != 0 {
            return 0;
        }
        let at = state.stack.wrapping_sub(8);
        if at >= frame {
            return u64::from(at != frame);
        }
        count += 1;
    }
    0
}
