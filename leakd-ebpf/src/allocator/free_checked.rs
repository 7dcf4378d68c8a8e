//! `free` where it is looked for blocks that are freed twice: every call has its
//! stack walked, so that both can be shown.

use super::{
    NO_STACK_FREE_CHECKED,
    free::{Call, take_back},
    no_private_stack,
};
use crate::{
    ledger::{Sites, TARGETS, count, recent_frees},
    registers::Registers,
    support::{opaque, read_user},
    unwind::{self, Walk},
};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated as helper};
use core::ffi::c_void;
use leakd_common::{
    bad_free::{BadFree, BadFreeKey, FreeChecks, Freed, FreedKey},
    block::Block,
    cookie::Cookie,
    target::{Counter, TargetConfig},
};

/// In the place of `free_entry`.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
pub fn free_checked(context: *mut c_void) -> u32 {
    // SAFETY: the helper takes the program's own context.
    let cookie = Cookie(unsafe { helper::bpf_get_attach_cookie(context) });
    no_private_stack!(context, cookie.0 == u64::MAX, NO_STACK_FREE_CHECKED);
    let registers = Registers::new(context);
    let (address, call) = take_back(registers, cookie);
    let slot = cookie.slot();
    let Some(config) = looked_at(slot) else { return 0 };
    let key = FreedKey { address, slot, epoch: config.epoch };
    match call {
        Call::End(block) => remember(registers, config, &key, &block),
        Call::Unknown => judge(registers, config, &key, cookie),
        Call::Ignored => {}
    }
    0
}

/// The target's settings, where its frees are looked at.
#[inline(always)]
pub fn looked_at(slot: u32) -> Option<&'static TargetConfig> {
    let config = TARGETS.get(slot)?;
    (config.free_checks != FreeChecks::Off as u32 && config.sampling == 0).then_some(config)
}

/// The call site of a `free`, announced like those of allocations.
#[inline(always)]
fn site(registers: Registers, config: &TargetConfig, slot: u32) -> Option<u64> {
    let frame = registers.frame_at_entry();
    let caller = read_user::<u64>(frame)?;
    let start = || {
        Walk::at_return(
            caller,
            frame.wrapping_add(8),
            registers.frame_pointer(),
            config.tgid,
            config.epoch,
        )
    };
    let key = {
        let mut walk = start();
        unwind::walk(&mut walk);
        opaque(walk.hash)
    };
    let sites = Sites::of(slot)?;
    let (key, site) = sites.find_or_make(key, config.epoch)?;
    // SAFETY: `site` is a value of the site map, which outlives the program.
    if unsafe { (*site).announced } == 0 {
        sites.announce(key, site, start(), bpf_get_current_pid_tgid(), config.epoch);
    }
    Some(key)
}

/// A block has been given back.
#[inline(always)]
pub fn remember(registers: Registers, config: &TargetConfig, key: &FreedKey, block: &Block) {
    let frame = registers.frame_at_entry();
    let Some(site) = site(registers, config, key.slot) else {
        count(key.slot, Counter::LostFrees);
        return;
    };
    let freed = Freed {
        site,
        allocated_at: block.site,
        size_and_owner: block.size_and_owner,
        // SAFETY: the helper has no preconditions.
        time_ns: unsafe { helper::bpf_ktime_get_ns() },
        frame,
        caller: read_user::<u64>(frame).unwrap_or(0),
        function: registers.instruction(),
        tid: bpf_get_current_pid_tgid() as u32,
        reserved: 0,
    };
    recent_frees::remember(key, &freed);
}

/// What is not in the ledger: freed already, or never allocated, or older than the
/// trace.
#[inline(always)]
pub fn judge(registers: Registers, config: &TargetConfig, key: &FreedKey, cookie: Cookie) {
    let before = recent_frees::find(key);
    let mut freed = Freed::default();
    if let Some(before) = before {
        // SAFETY: a value of the map; a copy of it may be torn when the same place
        // is freed by another thread at this moment, which is what is looked for.
        freed = unsafe { *before };
        // Another object's `free`, to which the first one passed the block on.
        let owner = Block { size_and_owner: freed.size_and_owner, ..Block::default() }.owner();
        if owner != cookie.owner() || is_same_call(registers, &freed) {
            return;
        }
    } else if config.free_checks != FreeChecks::All as u32 {
        return;
    }
    let Some(site) = site(registers, config, key.slot) else { return };
    let bad_key = BadFreeKey { site, freed_at: freed.site, slot: key.slot, epoch: key.epoch };
    let bad = BadFree {
        count: 1,
        address: key.address,
        allocated_at: freed.allocated_at,
        size_and_owner: freed.size_and_owner,
        freed_ns: freed.time_ns,
        // SAFETY: the helper has no preconditions.
        time_ns: unsafe { helper::bpf_ktime_get_ns() },
        freed_tid: freed.tid,
        tid: bpf_get_current_pid_tgid() as u32,
    };
    recent_frees::tell(&bad_key, &bad);
}

/// Whether this call is part of the one that freed the block: `operator delete`
/// calls `free`, or jumps to it. Then that one's return address still stands where
/// it stood. Any call since that went as deep has put another one there, but for
/// one from the same place: that calls the same function.
#[inline(always)]
fn is_same_call(registers: Registers, freed: &Freed) -> bool {
    let frame = registers.frame_at_entry();
    freed.tid == bpf_get_current_pid_tgid() as u32
        && frame <= freed.frame
        && !(frame == freed.frame && registers.instruction() == freed.function)
        && read_user::<u64>(freed.frame) == Some(freed.caller)
}
