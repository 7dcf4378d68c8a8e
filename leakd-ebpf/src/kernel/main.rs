//! The BPF programs that trace the kernel's own memory: an object of its own,
//! loaded only when someone asks, since every allocation of the machine passes
//! them.
//!
//! | room | concern |
//! |---|---|
//! | [`allocate`] | raw tracepoints where the kernel hands memory out |
//! | [`free`] | those where it takes memory back |
//! | [`filter`] | what is not to be traced, as cheaply as can be |
//! | [`ledger`] | outstanding blocks, call sites, counters |
//! | [`probe`] | probes on functions, where there is no tracepoint |
//! | [`recall`] | stacks that were walked before, known again |
//! | [`stack`] | the kernel's stack, and its hash |
//! | [`support`] | what the BPF target lacks |
//!
//! The programs run inside of the allocator: they must not allocate, so every
//! map is made whole beforehand. An interrupt may allocate in the middle of a
//! program; the kernel then runs the other programs, but not that same one, and
//! counts it (`recursion_misses`).
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features)] // BPF has no other way to an atomic add

mod allocate;
mod filter;
mod free;
mod ledger;
mod probe;
mod recall;
mod stack;
#[path = "../support.rs"]
#[allow(dead_code, reason = "the other object uses the rest")]
mod support;

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The arguments of a raw tracepoint, by position.
#[derive(Clone, Copy)]
pub struct Arguments(*const u64);

impl Arguments {
    /// The argument at `index`. The verifier lets no program read behind what
    /// the tracepoint has.
    #[inline(always)]
    pub fn get(self, index: usize) -> u64 {
        // SAFETY: the kernel passes an array of words, one for each argument; user
        // space has compared their number with the kernel's types.
        unsafe { *self.0.add(index) }
    }
}
