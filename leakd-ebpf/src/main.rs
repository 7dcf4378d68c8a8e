//! The BPF programs of leakd.
//!
//! | room | concern |
//! |---|---|
//! | [`allocator`] | what a call of malloc, free and the like means |
//! | [`ledger`] | outstanding blocks, call sites, counters, sampling |
//! | [`unwind`] | the walk over a user stack |
//! | [`floor`] | programs that do nothing, to measure the others against |
//! | [`lifecycle`] | fork, exec and thread exit |
//! | [`page_fault`] | page faults, by call site |
//! | [`registers`] | which register of user code is which |
//! | [`ring`] | announcements to user space |
//! | [`thread_registers`] | the registers of threads that do not run |
//! | [`support`] | the few things the BPF target lacks or spells oddly |
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features)] // BPF has no other way to an atomic add

mod allocator;
mod floor;
mod ledger;
mod lifecycle;
mod page_fault;
mod registers;
mod ring;
mod support;
mod thread_registers;
mod unwind;

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
