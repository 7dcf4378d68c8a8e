//! The registers of user code, by what they are for.
//!
//! Those of aarch64 compile, and no more: nothing of it was ever run. What looks
//! for a return address at the top of the stack finds one there on x86-64
//! alone.

use aya_ebpf::bindings::pt_regs;
use core::{ffi::c_void, ptr::read_volatile};

/// Registers of the interrupted user code.
#[derive(Clone, Copy)]
pub struct Registers(*const pt_regs);

impl Registers {
    /// The context of a uprobe program is the register set.
    #[inline(always)]
    pub fn new(context: *mut c_void) -> Self {
        Self(context.cast::<pt_regs>())
    }

    /// At a function's entry: the address that holds its return address.
    #[inline(always)]
    pub fn frame_at_entry(self) -> u64 {
        self.stack()
    }
}

#[cfg(not(bpf_target_arch = "aarch64"))]
impl Registers {
    /// The registers of a task: instruction, stack and frame pointer.
    #[inline(always)]
    pub unsafe fn of_task(registers: *const pt_regs) -> (u64, u64, u64) {
        // SAFETY: the caller has a register set; the verifier knows it by its
        // BTF type and checks the fields.
        unsafe {
            (
                read_volatile(&raw const (*registers).rip),
                read_volatile(&raw const (*registers).rsp),
                read_volatile(&raw const (*registers).rbp),
            )
        }
    }

    /// The instruction pointer.
    #[inline(always)]
    pub fn instruction(self) -> u64 {
        // SAFETY: the kernel hands a valid register set to each program.
        unsafe { (*self.0).rip }
    }

    /// The stack pointer.
    #[inline(always)]
    pub fn stack(self) -> u64 {
        // SAFETY: as above.
        unsafe { (*self.0).rsp }
    }

    /// The frame pointer.
    #[inline(always)]
    pub fn frame_pointer(self) -> u64 {
        // SAFETY: as above.
        unsafe { (*self.0).rbp }
    }

    /// What the function returned; valid at its return.
    #[inline(always)]
    pub fn result(self) -> u64 {
        // SAFETY: as above.
        unsafe { (*self.0).rax }
    }

    /// An integer argument, counted from 1 (System V ABI); 0 for no such.
    ///
    /// The verifier refuses a context pointer with a computed offset, which is
    /// what LLVM makes of a choice between fields: the registers are read
    /// first, then chosen from.
    #[inline(always)]
    pub fn argument(self, number: u8) -> u64 {
        // SAFETY: as above.
        let (first, second, third, fourth, fifth, sixth) = unsafe {
            (
                read_volatile(&raw const (*self.0).rdi),
                read_volatile(&raw const (*self.0).rsi),
                read_volatile(&raw const (*self.0).rdx),
                read_volatile(&raw const (*self.0).rcx),
                read_volatile(&raw const (*self.0).r8),
                read_volatile(&raw const (*self.0).r9),
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

    /// At a function's return: the address that held its return address.
    #[inline(always)]
    pub fn frame_at_return(self) -> u64 {
        self.stack().wrapping_sub(8)
    }
}

/// AAPCS64: x29 is the frame pointer, x0 to x7 hold arguments, x0 the result.
#[cfg(bpf_target_arch = "aarch64")]
impl Registers {
    /// The registers of a task: instruction, stack and frame pointer.
    #[inline(always)]
    pub unsafe fn of_task(registers: *const pt_regs) -> (u64, u64, u64) {
        // SAFETY: the caller has a register set; the verifier knows it by its
        // BTF type and checks the fields.
        unsafe {
            (
                read_volatile(&raw const (*registers).pc),
                read_volatile(&raw const (*registers).sp),
                read_volatile(&raw const (*registers).regs[29]),
            )
        }
    }

    /// The instruction pointer.
    #[inline(always)]
    pub fn instruction(self) -> u64 {
        // SAFETY: the kernel hands a valid register set to each program.
        unsafe { (*self.0).pc }
    }

    /// The stack pointer.
    #[inline(always)]
    pub fn stack(self) -> u64 {
        // SAFETY: as above.
        unsafe { (*self.0).sp }
    }

    /// The frame pointer.
    #[inline(always)]
    pub fn frame_pointer(self) -> u64 {
        // SAFETY: as above.
        unsafe { (*self.0).regs[29] }
    }

    /// What the function returned; valid at its return.
    #[inline(always)]
    pub fn result(self) -> u64 {
        // SAFETY: as above.
        unsafe { (*self.0).regs[0] }
    }

    /// An integer argument, counted from 1; 0 for no such.
    #[inline(always)]
    pub fn argument(self, number: u8) -> u64 {
        // SAFETY: as above.
        let [first, second, third, fourth, fifth, sixth] = unsafe {
            [0, 1, 2, 3, 4, 5].map(|index| read_volatile(&raw const (*self.0).regs[index]))
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

    /// At a function's return: the stack pointer is what it was at its entry.
    #[inline(always)]
    pub fn frame_at_return(self) -> u64 {
        self.stack()
    }
}
