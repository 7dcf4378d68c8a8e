//! Functions that hand memory out: the entry remembers what was asked for,
//! the return records what was given.

use super::{
    NO_STACK_ENTRY, NO_STACK_RETURN, NO_STACK_SESSION, THREADS, may_end, no_private_stack,
};
use crate::{
    ledger::{Blocks, Sites, TARGETS, count, weight},
    registers::Registers,
    support::{opaque, read_user},
    unwind::{self, Walk},
};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated as helper};
use core::ffi::c_void;
use leakd_common::{
    block::Block,
    cookie::{CUSTOM_OWNER, Cookie, Function},
    target::Counter,
    thread::Call,
};

/// Further down the stack than this, an allocator does not call itself.
const NESTING_BYTES: u64 = 1 << 20;

/// No process can be given a block of that many bytes (47 bits of addresses).
const ADDRESS_SPACE: u64 = 1 << 47;

/// In .rodata: the BPF stack has no room to spare.
#[unsafe(no_mangle)]
static NO_CALL: Call = Call::NONE;

#[inline(always)]
fn cookie(context: *mut c_void) -> Cookie {
    // SAFETY: the helper takes the program's own context.
    Cookie(unsafe { helper::bpf_get_attach_cookie(context) })
}

/// Entry and return in one program, for kernels with uprobe sessions (6.13).
/// Returns 1 at entry to have no return probe.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
pub fn allocate_session(context: *mut c_void) -> u32 {
    let registers = Registers::new(context);
    let cookie = cookie(context);
    no_private_stack!(context, cookie.0 == u64::MAX, NO_STACK_SESSION);
    // SAFETY: the helper takes the program's own context. The session's entry
    // runs at the probed address, its return at the caller's.
    if registers.instruction() == unsafe { helper::bpf_get_func_ip(context) } {
        u32::from(!enter(registers, cookie, true))
    } else {
        leave(registers, cookie);
        0
    }
}

/// The entry, where there are no sessions.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
pub fn allocate_entry(context: *mut c_void) -> u32 {
    let cookie = cookie(context);
    no_private_stack!(context, cookie.0 == u64::MAX, NO_STACK_ENTRY);
    enter(Registers::new(context), cookie, false);
    0
}

/// The return, where there are no sessions.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uretprobe")]
pub fn allocate_return(context: *mut c_void) -> u32 {
    let cookie = cookie(context);
    no_private_stack!(context, cookie.0 == u64::MAX, NO_STACK_RETURN);
    leave(Registers::new(context), cookie);
    0
}

/// This thread's call, made if need be.
#[inline(always)]
fn call_of_thread(tid: u32) -> Option<*mut Call> {
    if let Some(call) = THREADS.get_ptr_mut(tid) {
        return Some(call);
    }
    #[expect(
        clippy::needless_borrows_for_generic_args,
        reason = "by value, it would be copied to the BPF stack, which has no room"
    )]
    let _ = THREADS.insert(tid, &NO_CALL, 1);
    THREADS.get_ptr_mut(tid)
}

/// Whether the call with its return address at `outer` is still running, at
/// the entry of a function further down the same stack.
#[inline(always)]
fn is_around(outer: u64, registers: Registers, slot: u32) -> bool {
    let frame = registers.frame_at_entry();
    // A return probe takes the place of the return address until the call
    // returns. The kernel's trampoline is the first instruction of a page of
    // its own (kernel/events/uprobes.c, xol area).
    let hijacked = |address: u64| address != 0 && address & 0xfff == 0;
    if outer < frame || outer - frame >= NESTING_BYTES || !read_user(outer).is_some_and(hijacked) {
        return false;
    }
    if outer == frame {
        return true;
    }
    // Where the call was left by longjmp, its place on the stack may be part of
    // an array that has not been written to.
    let (Some(config), Some(caller)) = (TARGETS.get(slot), read_user::<u64>(frame)) else {
        return true;
    };
    let mut walk =
        Walk::at_return(caller, frame.wrapping_add(8), registers.frame_pointer(), config.tgid, 0);
    opaque(unwind::is_left(&mut walk, outer)) == 0
}

/// Bytes of an array. A product that wraps to 0 is made 1: a realloc to 0 bytes
/// frees the old block, one that overflows leaves it alone.
#[inline(always)]
fn product(count: u64, size: u64) -> u64 {
    let bytes = count.wrapping_mul(size);
    if bytes == 0 && count != 0 && size != 0 { 1 } else { bytes }
}

/// Handles the entry; true if the return is wanted. `optional_return`: the
/// return comes only if it is wanted.
#[inline(always)]
fn enter(registers: Registers, cookie: Cookie, optional_return: bool) -> bool {
    let slot = cookie.slot();
    let Some(config) = TARGETS.get(slot) else { return false };
    if config.paused != 0 {
        return false;
    }
    let Some(call) = call_of_thread(bpf_get_current_pid_tgid() as u32) else {
        count(slot, Counter::LostThread);
        return false;
    };
    // SAFETY: one thread has one call, and a thread is at one place at a time;
    // the value lives in a hash map, whose elements outlive the program.
    let call = unsafe { &mut *call };
    let frame = registers.frame_at_entry();

    call.outer_frame = if call.frame == 0 {
        0
    } else if is_around(call.frame, registers, slot) {
        // The same frame: the outer function has jumped to this one, as glibc's
        // realloc(NULL, n) does to malloc.
        let around = Cookie(call.cookie);
        if around.owner() == cookie.owner() || around.owner() == CUSTOM_OWNER {
            count(slot, Counter::Nested);
            if call.frame == frame && !optional_return {
                call.jumps += 1;
            }
            return false;
        }
        if call.pending.weight == 0 {
            // The inner call knows whether the block was.
            call.pending_address = 0;
        }
        settle_pending(call, slot, true);
        if call.outer_frame != 0 {
            call.forgotten += 1;
        }
        call.outer_return_address = call.return_address;
        call.outer_cookie = call.cookie;
        call.frame
    } else {
        // Left by longjmp, by an exception, or by a switch to another stack.
        settle_pending(call, slot, true);
        count(slot, Counter::LostUnpaired);
        call.forgotten = 0;
        0
    };
    call.frame = 0;

    let mut out_pointer = 0;
    let mut old = 0;
    let function = cookie.function();
    // Products may wrap: such a call returns no block. Only whether the size is
    // 0 matters then, see `product`.
    let is_plain = function == Function::Malloc as u8 || function == Function::New as u8;
    let size = if is_plain || function == Function::Valloc as u8 {
        registers.argument(1)
    } else if function == Function::Calloc as u8 {
        product(registers.argument(1), registers.argument(2))
    } else if function == Function::Realloc as u8 {
        old = registers.argument(1);
        registers.argument(2)
    } else if function == Function::Reallocarray as u8 {
        old = registers.argument(1);
        product(registers.argument(2), registers.argument(3))
    } else if function == Function::Memalign as u8 {
        registers.argument(2)
    } else if function == Function::PosixMemalign as u8 {
        out_pointer = registers.argument(1);
        registers.argument(3)
    } else {
        let place = cookie.arguments();
        out_pointer = registers.argument(place.pointer);
        let size = registers.argument(place.size);
        if place.count == 0 { size } else { product(size, registers.argument(place.count)) }
    };

    // It will throw, and no exception gets past a replaced return address: the
    // program would be aborted. (Where there is nothing to give although less
    // than this is asked for, it still is.)
    let will_throw = function == Function::New as u8 && size >= ADDRESS_SPACE;
    if optional_return && will_throw && call.outer_frame == 0 {
        count(slot, Counter::Failed);
        return false;
    }
    let weight = weight(slot, size);
    // A plain malloc that is not sampled needs no return probe. Others may
    // call malloc inside, and their end must be known to tell.
    if optional_return && weight == 0 && is_plain && call.outer_frame == 0 {
        count(slot, Counter::SampledOut);
        return false;
    }
    if old != 0 {
        take_old(call, slot, old, cookie);
    }
    // A call that was jumped to returns where the one around it does.
    call.return_address = if frame == call.outer_frame {
        call.outer_return_address
    } else {
        read_user::<u64>(frame).unwrap_or(0)
    };
    call.size = size;
    call.out_pointer = out_pointer;
    call.cookie = cookie.0;
    call.weight = u64::from(weight);
    call.delegated = 0;
    call.jumps = 0;
    call.frame = frame;
    true
}

/// realloc: the old block leaves the ledger at entry, so that another thread
/// that is given its address finds it free.
#[inline(always)]
fn take_old(call: &mut Call, slot: u32, address: u64, cookie: Cookie) {
    let Some(blocks) = Blocks::of(slot) else { return };
    match blocks.get(address) {
        Some(block) if may_end(cookie, &block) => {
            if blocks.take(address) {
                call.pending = block;
                call.pending_address = address;
            }
        }
        Some(_) => {}
        None => {
            call.pending.weight = 0;
            call.pending_address = address;
        }
    }
}

/// Decides the fate of the block that realloc took out of the ledger, or that
/// was not in it (weight 0).
#[inline(always)]
fn settle_pending(call: &mut Call, slot: u32, freed: bool) {
    if call.pending_address == 0 {
        return;
    }
    if call.pending.weight == 0 {
        if freed {
            count(slot, Counter::UnknownFrees);
        }
    } else if let Some(blocks) = Blocks::of(slot) {
        let block = call.pending;
        if freed || !blocks.insert(call.pending_address, &block) {
            // Where another thread has taken its room, it is lost and leaves
            // the site's totals, too.
            blocks.account_freed(&block);
        }
    }
    call.pending_address = 0;
}

/// Handles the return.
#[inline(always)]
fn leave(registers: Registers, cookie: Cookie) {
    let slot = cookie.slot();
    let ids = bpf_get_current_pid_tgid();
    // Before 6.13, perf events let the program for one process run at the returns
    // of all that have a return probe at the same place. Those of other
    // targets are known by their slot, those of other tracers' targets by their
    // threads, which have made no call here. (A thread that there was no room for
    // has been counted at its entry.)
    let Some(call) = THREADS.get_ptr_mut(ids as u32) else { return };
    // SAFETY: as in `enter`.
    let call = unsafe { &mut *call };
    if Cookie(call.cookie).slot() != slot {
        return;
    }
    if call.frame != registers.frame_at_return() {
        if call.frame == 0 && call.forgotten != 0 {
            call.forgotten -= 1;
            return;
        }
        // Without sessions, an inner call that does not count returns here too.
        if call.frame == 0 || Cookie(call.cookie).owner() != cookie.owner() {
            count(slot, Counter::LostUnpaired);
        }
        return;
    }
    if call.jumps != 0 {
        call.jumps -= 1;
        return;
    }
    call.frame = 0;
    if call.delegated == 0 {
        let address = if call.out_pointer == 0 {
            registers.result()
        } else if registers.result() as u32 == 0 {
            read_user::<u64>(call.out_pointer).unwrap_or(0)
        } else {
            0
        };
        // MAP_FAILED, for functions that are mmap at heart.
        let given = address != 0 && address != u64::MAX;
        settle_pending(call, slot, given || call.size == 0);
        if !given {
            count(slot, Counter::Failed);
        } else if call.weight == 0 {
            count(slot, Counter::SampledOut);
        } else {
            record(registers, call, cookie, ids, address);
        }
    }
    if call.outer_frame != 0 {
        call.frame = call.outer_frame;
        call.return_address = call.outer_return_address;
        call.cookie = call.outer_cookie;
        call.outer_frame = 0;
        call.delegated = 1;
    }
}

/// Puts a block that has just been handed out into the ledger.
#[inline(always)]
fn record(registers: Registers, call: &Call, cookie: Cookie, ids: u64, address: u64) {
    let slot = cookie.slot();
    let (Some(blocks), Some(sites), Some(config)) =
        (Blocks::of(slot), Sites::of(slot), TARGETS.get(slot))
    else {
        return;
    };
    let epoch = config.epoch;
    let start = || {
        Walk::at_return(
            registers.instruction(),
            registers.stack(),
            registers.frame_pointer(),
            config.tgid,
            epoch,
        )
    };
    let key = {
        let mut walk = start();
        unwind::walk(&mut walk);
        opaque(walk.hash)
    };
    let Some((key, site)) = sites.find_or_make(key, epoch) else { return };
    // SAFETY: the helper has no preconditions.
    let birth_ns = unsafe { helper::bpf_ktime_get_ns() };
    let block = Block {
        size_and_owner: Block::pack(call.size, cookie.owner()),
        birth_ns,
        site: key,
        weight: call.weight as u32,
        tid: ids as u32,
    };
    if blocks.insert(address, &block) {
        count(slot, Counter::Inserted);
        Sites::allocated(site, &block);
    }
    // SAFETY: `site` is a value of the site map, which outlives the program.
    if unsafe { (*site).announced } == 0 {
        sites.announce(key, site, start(), ids, epoch);
    }
}
