//! The allocator call that a thread is in.

use crate::{block::Block, plain_data};

/// Words of a thread's registers, as the kernel lays them out on x86-64 (`struct
/// pt_regs`): r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi,
/// rdi, the system call's number, rip, cs, flags, rsp, ss.
pub const REGISTER_WORDS: usize = 21;
/// Which of them is the instruction pointer.
pub const INSTRUCTION_WORD: usize = 16;
/// Which of them is the stack pointer.
pub const STACK_WORD: usize = 19;

/// What is remembered between a function's entry and its return.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// The address that holds the call's return address: it names the call,
    /// and tells an inner call (deeper) from a stale entry. 0: not in a call.
    pub frame: u64,
    /// The return address that was there, before a return probe replaced it.
    pub return_address: u64,
    /// The bytes asked for.
    pub size: u64,
    /// Where the block's address will be stored; 0: it is returned.
    pub out_pointer: u64,
    /// The probe's cookie.
    pub cookie: u64,
    /// How many blocks the result stands for; 0: it is not sampled.
    pub weight: u64,
    /// realloc: the address of the block that was taken out of the ledger at
    /// entry; 0: none.
    pub pending_address: u64,
    /// realloc: that block, to be put back should the call fail. Weight 0: it
    /// was not in the ledger.
    pub pending: Block,
    /// The call around this one, in another object (an interposer): the
    /// address that holds its return address; 0: none.
    pub outer_frame: u64,
    /// Its return address.
    pub outer_return_address: u64,
    /// Its cookie.
    pub outer_cookie: u64,
    /// 1: an inner call in another object has done this call's work, so its
    /// return counts nothing.
    pub delegated: u32,
    /// Calls in the same object that this one ended in by jumps: they return
    /// where it does, and before it. Without uprobe sessions only.
    pub jumps: u16,
    /// Calls around the outer one, in still other objects: nothing more is
    /// known of them, and they count nothing.
    pub forgotten: u16,
}

plain_data!(Call = 120);

impl Call {
    /// Not in a call.
    pub const NONE: Self = Self {
        frame: 0,
        return_address: 0,
        size: 0,
        out_pointer: 0,
        cookie: 0,
        weight: 0,
        pending_address: 0,
        pending: Block { size_and_owner: 0, birth_ns: 0, site: 0, weight: 0, tid: 0 },
        outer_frame: 0,
        outer_return_address: 0,
        outer_cookie: 0,
        delegated: 0,
        jumps: 0,
        forgotten: 0,
    };
}
