//! The registers of user code, by what they are for.
//!
//! Those of aarch64 compile, and no more: nothing of it was ever run. What looks
//! for a return address at the top of the stack finds one there on x86-64
//! alone.

use aya_ebpf::bindings::pt_regs;
use core::{ffi::c_void, ptr::read_volatile};

/// System V ABI.
#[cfg(not(bpf_target_arch = "aarch64"))]
mod abi {
    /// The field that holds a register, behind a pointer to all.
    macro_rules! register {
        ($all:expr, instruction) => {
            (*$all).rip
        };
        ($all:expr, stack) => {
            (*$all).rsp
        };
        ($all:expr, frame_pointer) => {
            (*$all).rbp
        };
        ($all:expr, result) => {
            (*$all).rax
        };
        ($all:expr, argument 1) => {
            (*$all).rdi
        };
        ($all:expr, argument 2) => {
            (*$all).rsi
        };
        ($all:expr, argument 3) => {
            (*$all).rdx
        };
        ($all:expr, argument 4) => {
            (*$all).rcx
        };
        ($all:expr, argument 5) => {
            (*$all).r8
        };
        ($all:expr, argument 6) => {
            (*$all).r9
        };
    }
    pub(super) use register;
    /// A return takes its address off the stack.
    pub const TAKEN_BY_RETURN: u64 = 8;
}

/// AAPCS64: x29 is the frame pointer, x0 to x7 hold arguments, x0 the result.
#[cfg(bpf_target_arch = "aarch64")]
mod abi {
    /// The field that holds a register, behind a pointer to all.
    macro_rules! register {
        ($all:expr, instruction) => {
            (*$all).pc
        };
        ($all:expr, stack) => {
            (*$all).sp
        };
        ($all:expr, frame_pointer) => {
            (*$all).regs[29]
        };
        ($all:expr, result) => {
            (*$all).regs[0]
        };
        ($all:expr, argument $number:literal) => {
            (*$all).regs[$number - 1]
        };
    }
    pub(super) use register;
    /// A return takes nothing off the stack.
    pub const TAKEN_BY_RETURN: u64 = 0;
}

use abi::register;

/// Registers of the interrupted user code.
#[derive(Clone, Copy)]
pub struct Registers(*const pt_regs);

impl Registers {
    /// The context of a uprobe program is the register set.
    #[inline(always)]
    pub fn new(context: *mut c_void) -> Self {
        Self(context.cast::<pt_regs>())
    }

    /// The registers of a task: instruction, stack and frame pointer.
    #[inline(always)]
    pub unsafe fn of_task(registers: *const pt_regs) -> (u64, u64, u64) {
        // SAFETY: the caller has a register set; the verifier knows it by its
        // BTF type and checks the fields.
        unsafe {
            (
                read_volatile(&raw const register!(registers, instruction)),
                read_volatile(&raw const register!(registers, stack)),
                read_volatile(&raw const register!(registers, frame_pointer)),
            )
        }
    }

    /// The instruction pointer.
    #[inline(always)]
    pub fn instruction(self) -> u64 {
        // SAFETY: the kernel hands a valid register set to each program.
        unsafe { register!(self.0, instruction) }
    }

    /// The stack pointer.
    #[inline(always)]
    pub fn stack(self) -> u64 {
        // SAFETY: as above.
        unsafe { register!(self.0, stack) }
    }

    /// The frame pointer.
    #[inline(always)]
    pub fn frame_pointer(self) -> u64 {
        // SAFETY: as above.
        unsafe { register!(self.0, frame_pointer) }
    }

    /// What the function returned; valid at its return.
    #[inline(always)]
    pub fn result(self) -> u64 {
        // SAFETY: as above.
        unsafe { register!(self.0, result) }
    }

    /// An integer argument, counted from 1; 0 for no such.
    ///
    /// The verifier refuses a context pointer with a computed offset, which is
    /// what LLVM makes of a choice between fields: the registers are read
    /// first, then chosen from.
    #[inline(always)]
    pub fn argument(self, number: u8) -> u64 {
        // SAFETY: as above.
        let (first, second, third, fourth, fifth, sixth) = unsafe {
            (
                read_volatile(&raw const register!(self.0, argument 1)),
                read_volatile(&raw const register!(self.0, argument 2)),
                read_volatile(&raw const register!(self.0, argument 3)),
                read_volatile(&raw const register!(self.0, argument 4)),
                read_volatile(&raw const register!(self.0, argument 5)),
                read_volatile(&raw const register!(self.0, argument 6)),
            )
        };
        match number {
            1 => first,
            2 => second,
            3 => third,
            4 => fourth,
            5 => fifth,
            6 => sixth,
            _ => 0,
        }
    }

    /// At a function's entry: the address that holds its return address.
    #[inline(always)]
    pub fn frame_at_entry(self) -> u64 {
        self.stack()
    }

    /// At a function's return: the stack pointer that it had at its entry.
    #[inline(always)]
    pub fn frame_at_return(self) -> u64 {
        self.stack().wrapping_sub(abi::TAKEN_BY_RETURN)
    }
}
