//! Functions that take memory back.

use super::{NO_STACK_FREE, THREADS, may_end, no_private_stack};
use crate::{
    ledger::{Blocks, count},
    registers::Registers,
};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated as helper};
use core::ffi::c_void;
use leakd_common::{
    block::Block,
    cookie::{CUSTOM_OWNER, Cookie, Function},
    target::Counter,
};

/// The entry of `free` and its like.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
pub fn free_entry(context: *mut c_void) -> u32 {
    // SAFETY: the helper takes the program's own context.
    let cookie = Cookie(unsafe { helper::bpf_get_attach_cookie(context) });
    no_private_stack!(context, cookie.0 == u64::MAX, NO_STACK_FREE);
    take_back(Registers::new(context), cookie);
    0
}

/// What a call of `free` and its like was.
pub enum Call {
    /// The end of a block.
    End(Block),
    /// None that counts: of NULL, inside another call, or of a block of another
    /// allocator.
    Ignored,
    /// Of what is not in the ledger.
    Unknown,
}

/// Takes the block out of the ledger; gives its address, too.
#[inline(always)]
pub fn take_back(registers: Registers, cookie: Cookie) -> (u64, Call) {
    let address = if cookie.function() == Function::Free as u8 {
        registers.argument(1)
    } else {
        registers.argument(cookie.arguments().pointer)
    };
    let slot = cookie.slot();
    if address == 0 {
        count(slot, Counter::Ignored);
        return (address, Call::Ignored);
    }
    let Some(blocks) = Blocks::of(slot) else { return (address, Call::Ignored) };
    let Some(block) = blocks.get(address) else {
        if is_inside_a_call(cookie) {
            count(slot, Counter::Ignored);
            return (address, Call::Ignored);
        }
        count(slot, Counter::UnknownFrees);
        return (address, Call::Unknown);
    };
    // A block ends where it was made: the `free` of an interposer may or may
    // not pass it on.
    if may_end(cookie, &block) || cookie.owner() == CUSTOM_OWNER {
        blocks.remove(address, &block);
        (address, Call::End(block))
    } else {
        count(slot, Counter::Ignored);
        (address, Call::Ignored)
    }
}

/// realloc took its old block out of the ledger before it calls free on it.
#[inline(always)]
fn is_inside_a_call(cookie: Cookie) -> bool {
    let Some(call) = THREADS.get_ptr_mut(bpf_get_current_pid_tgid() as u32) else { return false };
    // SAFETY: this thread's own call; see `allocate::enter`.
    unsafe { (*call).frame != 0 && Cookie((*call).cookie).owner() == cookie.owner() }
}
