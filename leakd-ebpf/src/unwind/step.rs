//! One frame up.

use super::{
    GO_ON, Walk,
    mapping::enter_mapping,
    table::{LAST_RULE, find_rule},
};
use crate::allocator::THREADS;
use crate::support::{lookup, opaque, read_user};
use aya_ebpf::{btf_maps::Array, helpers::bpf_get_current_pid_tgid, macros::btf_map};
use core::hint::black_box;
use leakd_common::{
    event::StackEnd,
    unwind::{CfaKind, FpKind, RULES as MAX_RULES, Rule},
};

/// The rules of all tables.
#[btf_map]
static RULES: Array<Rule, MAX_RULES, 0x400> = Array::new();

/// Cache of (table, address) -> rule, by hash: an address in the upper 44
/// bits, its rule in the lower 20. Racing writers only cost each other an
/// entry: it is read and written in one piece.
#[btf_map]
static RULE_CACHE: Array<u64, 65536> = Array::new();

const RULE_BITS: u32 = 20;
/// A frame-pointer step goes no further than this.
const FRAME_BYTES: u64 = 1 << 20;
/// Words below the CFA that are read at once: the return address and the seven
/// registers that a function may push behind it. A read costs some 25 ns,
/// however long.
const SAVED_WORDS: usize = 8;
/// User addresses end here (47 bits).
const USER_END: u64 = 1 << 47;
/// The trampoline that takes the place of a return address is the first
/// instruction of a page of its own (kernel/events/uprobes.c, xol area).
const TRAMPOLINE_MASK: u64 = 0xfff;
/// In the kernel's signal frame, from the stack pointer in the handler's
/// caller on: struct rt_sigframe without pretcode, uc_mcontext at 40, in it
/// rbp at 80 (arch/x86/include/asm/sigframe.h, uapi sigcontext.h).
const SIGNAL_FRAME_POINTER: u64 = 120;

/// Goes up one frame; [`GO_ON`] or a [`StackEnd`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn step(walk: *mut Walk) -> u64 {
    if walk.is_null() {
        return StackEnd::Internal as u64;
    }
    // SAFETY: not null, and the verifier checks that it is a whole Walk.
    let state = unsafe { &mut *walk };
    // A return address may be the first byte behind the function that called.
    let pc = state.instruction.wrapping_sub(u64::from(state.is_return_address & 1));
    if pc < state.begin || pc >= state.end_of_mapping {
        let status = opaque(enter_mapping(walk, pc));
        if status == StackEnd::NoMapping as u64 || status == StackEnd::NoTable as u64 {
            return by_frame_pointer(state, status);
        }
        if status != GO_ON {
            return status;
        }
    }
    let address = pc.wrapping_sub(state.bias);
    let number = rule_number(state, address);
    if number > LAST_RULE {
        let end = u64::MAX - number;
        return if end == StackEnd::NoRow as u64 { by_frame_pointer(state, end) } else { end };
    }
    let number = black_box(number as u32);
    let Some(rule) = lookup::<u32, Rule>((&raw const RULES).cast(), &number) else {
        return StackEnd::Internal as u64;
    };
    // SAFETY: array values are never freed.
    apply(state, unsafe { *rule }, pc)
}

/// The rule's number, from the cache or from the table.
#[inline(always)]
fn rule_number(state: &Walk, address: u64) -> u64 {
    let tag = (u64::from(state.table) << 32) | (address & 0xffff_ffff);
    let slot = (tag.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48) as u32;
    let geometry = u64::from(state.first_page) << 32 | u64::from(state.pages);
    let Some(entry) = lookup::<u32, u64>((&raw const RULE_CACHE).cast(), &slot) else {
        return u64::MAX - StackEnd::Internal as u64;
    };
    // SAFETY: array values are never freed; 8 bytes are read at once.
    let cached = unsafe { core::ptr::read_volatile(entry) };
    if cached >> RULE_BITS == tag && cached != 0 {
        return cached & ((1 << RULE_BITS) - 1);
    }
    let number = opaque(find_rule(state.table, address, geometry, state.row_cell));
    if number <= LAST_RULE {
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(entry, tag << RULE_BITS | number) };
    }
    number
}

/// Finds the caller by a rule.
#[inline(always)]
fn apply(state: &mut Walk, rule: Rule, pc: u64) -> u64 {
    let (stack, frame_pointer) = (state.stack, state.frame_pointer);
    let kind = rule.cfa_kind();
    let cfa = if kind == CfaKind::StackPointer as u64 {
        stack.wrapping_add(rule.cfa_offset())
    } else if kind == CfaKind::FramePointer as u64 {
        frame_pointer.wrapping_add(rule.cfa_offset())
    } else if kind == CfaKind::Plt as u64 {
        stack.wrapping_add(if (pc & 15) >= rule.extra() { 16 } else { 8 })
    } else if kind == CfaKind::DerefStackPointer as u64 || kind == CfaKind::DerefFramePointer as u64
    {
        let base = if kind == CfaKind::DerefStackPointer as u64 { stack } else { frame_pointer };
        let Some(value) = read_user::<u64>(base.wrapping_add(rule.cfa_offset())) else {
            return StackEnd::Unreadable as u64;
        };
        value.wrapping_add(rule.extra() << 3)
    } else if kind == CfaKind::Signal as u64 {
        // rbp, rbx, rdx, rax, rcx, rsp, rip
        let Some(saved) = read_user::<[u64; 7]>(stack.wrapping_add(SIGNAL_FRAME_POINTER)) else {
            return StackEnd::Unreadable as u64;
        };
        state.frame_pointer = saved[0];
        state.stack = saved[5];
        state.instruction = saved[6];
        state.is_return_address = 0;
        return GO_ON;
    } else if kind == CfaKind::Bottom as u64 {
        return StackEnd::Bottom as u64;
    } else if kind == CfaKind::None as u64 {
        return by_frame_pointer(state, StackEnd::NoRow as u64);
    } else {
        return StackEnd::Unsupported as u64;
    };
    if cfa <= stack || cfa & 7 != 0 {
        return StackEnd::BadFrame as u64;
    }
    if rule.return_kind() != 0 {
        return StackEnd::Unsupported as u64;
    }
    let at_cfa = rule.fp_kind() == FpKind::AtCfa as u64;
    let offset = rule.fp_offset();
    // Which of the words below the CFA holds the frame pointer.
    let word = (offset.wrapping_add(8 * SAVED_WORDS as u64)) >> 3;
    let return_address;
    if at_cfa
        && word < SAVED_WORDS as u64
        && let Some(saved) =
            read_user::<[u64; SAVED_WORDS]>(cfa.wrapping_sub(8 * SAVED_WORDS as u64))
    {
        // The usual case: one read gives both.
        // SAFETY: the verifier sees the mask, and that it is below SAVED_WORDS.
        state.frame_pointer =
            unsafe { *saved.get_unchecked(black_box(word) as usize & (SAVED_WORDS - 1)) };
        return_address = saved[SAVED_WORDS - 1];
    } else {
        if at_cfa || rule.fp_kind() == FpKind::AtFramePointer as u64 {
            let base = if at_cfa { cfa } else { frame_pointer };
            let Some(saved) = read_user::<u64>(base.wrapping_add(offset)) else {
                return StackEnd::Unreadable as u64;
            };
            state.frame_pointer = saved;
        }
        let Some(saved) = read_user::<u64>(cfa.wrapping_sub(8)) else {
            return StackEnd::Unreadable as u64;
        };
        return_address = saved;
    }
    arrive(state, cfa, return_address)
}

/// The return address that was at `frame` before a return probe of this
/// thread's allocator calls put that of its trampoline there.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn original(frame: u64, trampoline: u64) -> u64 {
    let tid = bpf_get_current_pid_tgid() as u32;
    let Some(call) = THREADS.get_ptr_mut(tid) else { return trampoline };
    // SAFETY: the value lives in a hash map, whose elements outlive the program,
    // and is this thread's own.
    let call = unsafe { &*call };
    if call.frame == frame {
        call.return_address
    } else if call.outer_frame == frame {
        call.outer_return_address
    } else {
        trampoline
    }
}

/// Takes the caller's frame as the current one.
#[inline(always)]
fn arrive(state: &mut Walk, cfa: u64, return_address: u64) -> u64 {
    state.stack = cfa;
    state.is_return_address = 1;
    state.instruction = if return_address & TRAMPOLINE_MASK == 0 && return_address != 0 {
        opaque(original(cfa.wrapping_sub(8), return_address))
    } else {
        return_address
    };
    if state.instruction == 0 { StackEnd::ZeroReturn as u64 } else { GO_ON }
}

/// Code without a table that does no more after the call than give its frame
/// back says how large that is: `add $n, %rsp; ret`, as in CPython's
/// trampolines (Python/asm_trampoline.S). Gives the CFA, or 0.
#[inline(always)]
fn by_epilogue(state: &Walk) -> u64 {
    const ADD_TO_STACK: u64 = 0xc4_8348;
    const RETURN: u64 = 0xc3;
    if state.is_return_address == 0 {
        return 0;
    }
    let Some(code) = read_user::<u64>(state.instruction) else { return 0 };
    // A signed byte; no frame is negative.
    let size = code >> 24 & 0xff;
    if code & 0xff_ffff != ADD_TO_STACK || code >> 32 & 0xff != RETURN || size & 0x87 != 0 {
        return 0;
    }
    state.stack.wrapping_add(size + 8)
}

/// Code without a table (a JIT's) may show its frame after the call, or keep
/// the frame pointer; if nothing speaks against it, follow that. Otherwise the
/// walk ends for `end`.
#[inline(always)]
fn by_frame_pointer(state: &mut Walk, end: u64) -> u64 {
    let cfa = by_epilogue(state);
    if cfa != 0 {
        let Some(saved) = read_user::<u64>(cfa.wrapping_sub(8)) else { return end };
        if !(4096..USER_END).contains(&saved) {
            return end;
        }
        state.frame_pointer_steps += 1;
        // Look the caller's mapping up afresh.
        state.begin = 1;
        state.end_of_mapping = 0;
        return arrive(state, cfa, saved);
    }
    let frame = state.frame_pointer;
    if frame < state.stack || frame & 7 != 0 || frame - state.stack > FRAME_BYTES {
        return end;
    }
    let Some(saved) = read_user::<[u64; 2]>(frame) else { return end };
    if saved[1] < 4096 || saved[1] >= USER_END {
        return end;
    }
    state.frame_pointer = saved[0];
    state.frame_pointer_steps += 1;
    // Look the caller's mapping up afresh.
    state.begin = 1;
    state.end_of_mapping = 0;
    arrive(state, frame + 16, saved[1])
}
