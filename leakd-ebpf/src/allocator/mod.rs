//! What a call of an allocator function means for the ledger.
//!
//! Each block is counted once: where allocator functions call one another
//! (realloc calls malloc), the outermost call of a thread into one object
//! counts. Where an interposer in one object calls the allocator in another,
//! the inner one counts: it is the one that owns the memory, and only its own
//! `free` ends the block. Functions that the user named count over all others.

mod allocate;
mod free;
mod free_checked;
mod realloc_checked;

use aya_ebpf::{btf_maps::HashMap, btf_maps::ProgramArray, macros::btf_map};
use leakd_common::{
    block::Block,
    cookie::{CUSTOM_OWNER, Cookie},
    thread::Call,
};

const NO_PREALLOC: usize = 1; // BPF_F_NO_PREALLOC

/// The allocator call that each thread is in, by tid.
#[btf_map]
pub static THREADS: HashMap<u32, Call, { 256 << 10 }, NO_PREALLOC> = HashMap::new();

/// Whether the function that is called ends the block: both belong to one object, or
/// the user named the function that handed it out.
#[inline(always)]
fn may_end(cookie: Cookie, block: &Block) -> bool {
    block.owner() == cookie.owner() || block.owner() == CUSTOM_OWNER
}

/// Always empty. From 6.13 on, programs with a frame of 64 bytes or more get a
/// BPF stack that belongs to the CPU, and a uprobe that is preempted finds it
/// overwritten. The kernel leaves programs alone that could make a tail call,
/// so each uprobe program has one that it never reaches. One array for each
/// program: an array serves only programs of one attach type.
macro_rules! no_private_stack {
    ($context:expr, $never:expr, $array:path) => {
        // Must be false, and the compiler must not know it.
        if $never {
            let context = aya_ebpf::programs::ProbeContext::new($context);
            // SAFETY: the program array is empty, so the call returns at once.
            unsafe { $array.tail_call(&context, 0) };
            return 0;
        }
    };
}
pub(crate) use no_private_stack;

#[btf_map]
static NO_STACK_SESSION: ProgramArray<1> = ProgramArray::new();
#[btf_map]
static NO_STACK_ENTRY: ProgramArray<1> = ProgramArray::new();
#[btf_map]
static NO_STACK_RETURN: ProgramArray<1> = ProgramArray::new();
#[btf_map]
static NO_STACK_FREE: ProgramArray<1> = ProgramArray::new();
#[btf_map]
static NO_STACK_FREE_CHECKED: ProgramArray<1> = ProgramArray::new();
#[btf_map]
static NO_STACK_REALLOC_CHECKED: ProgramArray<1> = ProgramArray::new();
