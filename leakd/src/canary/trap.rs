//! Functions that do nothing, to be probed for what a trap costs: one begins
//! with an instruction that the kernel emulates, one with an instruction that
//! it single-steps. The second is a debug exception, which a hypervisor may
//! make very dear.

/// What begins a probed function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// An instruction that the kernel emulates.
    Emulated,
    /// An instruction that the kernel single-steps.
    SingleStepped,
}

impl Trap {
    /// The function that begins so; in every process of this program at the
    /// same place of its file.
    pub fn function(self) -> extern "C" fn() {
        match self {
            Self::Emulated => emulated,
            Self::SingleStepped => single_stepped,
        }
    }

    /// What the child is told to measure it.
    pub const fn order(self) -> u8 {
        match self {
            Self::Emulated => b'e',
            Self::SingleStepped => b's',
        }
    }
}

#[unsafe(naked)]
extern "C" fn emulated() {
    core::arch::naked_asm!("nop", "ret")
}

/// The instruction that glibc's `free` begins with.
#[unsafe(naked)]
extern "C" fn single_stepped() {
    core::arch::naked_asm!("test rdi, rdi", "ret")
}
