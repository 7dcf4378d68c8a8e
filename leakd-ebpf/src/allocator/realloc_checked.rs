//! `realloc` where it is looked for blocks that are freed twice: it gives one back,
//! and may be called with one that is gone.

use super::{
    NO_STACK_REALLOC_CHECKED, THREADS,
    free_checked::{judge, looked_at, remember},
    may_end, no_private_stack,
};
use crate::{ledger::Blocks, registers::Registers};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated as helper};
use core::ffi::c_void;
use leakd_common::{bad_free::FreedKey, block::Block, cookie::Cookie};

/// Beside the program of `allocate` at `realloc` and `reallocarray`, in whatever
/// order the kernel runs the two.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
pub fn realloc_checked(context: *mut c_void) -> u32 {
    // SAFETY: the helper takes the program's own context.
    let cookie = Cookie(unsafe { helper::bpf_get_attach_cookie(context) });
    no_private_stack!(context, cookie.0 == u64::MAX, NO_STACK_REALLOC_CHECKED);
    let registers = Registers::new(context);
    let slot = cookie.slot();
    let Some(config) = looked_at(slot) else { return 0 };
    let address = registers.argument(1);
    if address == 0 {
        return 0;
    }
    let key = FreedKey { address, slot, epoch: config.epoch };
    match old_block(registers, cookie, address) {
        Old::Block(block) => remember(registers, config, &key, &block),
        Old::None => judge(registers, config, &key, cookie),
        Old::Ignored => {}
    }
    0
}

/// What `realloc` was called with.
enum Old {
    Block(Block),
    /// None that is known.
    None,
    /// Another call's, which has been looked at, or another allocator's.
    Ignored,
}

#[inline(always)]
fn old_block(registers: Registers, cookie: Cookie, address: u64) -> Old {
    if let Some(call) = THREADS.get_ptr_mut(bpf_get_current_pid_tgid() as u32) {
        // SAFETY: one thread has one call, and a thread is at one place at a time;
        // the value lives in a hash map, whose elements outlive the program.
        let call = unsafe { &*call };
        if call.frame == registers.frame_at_entry() && call.cookie == cookie.0 {
            // The other program came first and took it out of the ledger.
            return match call.pending_address == address {
                true if call.pending.weight != 0 => Old::Block(call.pending),
                true => Old::None,
                false => Old::Ignored,
            };
        }
        if call.frame != 0 && Cookie(call.cookie).owner() == cookie.owner() {
            return Old::Ignored;
        }
    }
    let Some(blocks) = Blocks::of(cookie.slot()) else { return Old::Ignored };
    match blocks.get(address) {
        Some(block) if may_end(cookie, &block) => Old::Block(block),
        Some(_) => Old::Ignored,
        None => Old::None,
    }
}
