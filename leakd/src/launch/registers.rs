//! The few registers that matter where a command is held.

use nix::sys::ptrace;
use nix::unistd::Pid;

/// Registers of a stopped thread, by what they are for.
#[derive(Clone, Copy, Debug)]
pub struct Registers(libc::user_regs_struct);

impl Registers {
    /// Reads those of a thread that is stopped by ptrace(2).
    pub fn of(thread: Pid) -> nix::Result<Self> {
        ptrace::getregs(thread).map(Self)
    }
}

// System calls: syscall(2), "Architecture calling conventions". The number and
// the third argument are the same after the call as before it.
#[cfg(target_arch = "x86_64")]
impl Registers {
    /// Address of the next instruction.
    pub fn instruction(&self) -> u64 {
        self.0.rip
    }

    /// Number of the system call that the thread is in.
    pub fn system_call(&self) -> u64 {
        self.0.orig_rax
    }

    /// Its third argument.
    pub fn third_argument(&self) -> u64 {
        self.0.rdx
    }
}

#[cfg(target_arch = "aarch64")]
impl Registers {
    /// Address of the next instruction.
    pub fn instruction(&self) -> u64 {
        self.0.pc
    }

    /// Number of the system call that the thread is in.
    pub fn system_call(&self) -> u64 {
        self.0.regs[8]
    }

    /// Its third argument.
    pub fn third_argument(&self) -> u64 {
        self.0.regs[2]
    }
}
