//! Where in a function to put the probe.
//!
//! A uprobe is a breakpoint in place of an instruction. What that instruction
//! is decides the price: the kernel emulates a few and single-steps all
//! others out of line, which costs two more exceptions (0.5 against 18 us
//! where a hypervisor intercepts debug exceptions). So the probe goes to the
//! first instruction that is emulated, provided that at that point
//! - every call of the function passes exactly once: the way there is straight
//!   from the entry, and no branch of the function leads back into it;
//! - the operands are still in registers that the BPF program can read;
//! - for a function whose return is probed as well, the stack pointer still
//!   points at the return address, because that is where the kernel looks for
//!   it (`arch_uretprobe_hijack_return_addr`).
//!
//! Where the way ends before such an instruction, the probe goes to the entry.
//!
//! Branches are found by decoding the whole function. Targets of jump tables
//! are not known; [`Placement::indirect_jumps`] says that there are such
//! jumps. A table that led back into the straight way would make that place
//! count twice; compilers build tables for `switch`, whose cases lie behind
//! the dispatching jump, and that jump behind the way.

mod instruction;
mod operand;
mod walk;

use leakd_common::cookie::{Arguments, Function};

use crate::elf::{ElfError, ElfObject, Machine};

pub use instruction::Emulation;
use walk::walk;

#[cfg(test)]
mod tests;

/// Functions are decoded up to this size in bytes.
const MAX_FUNCTION: u64 = 64 << 10;
/// As far as one is decoded whose symbol does not tell its size.
const UNKNOWN_SIZE: u64 = 4 << 10;

/// What a probe costs where it is placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cost {
    /// One exception: the kernel emulates the instruction.
    Emulated,
    /// Three exceptions: the kernel single-steps it.
    SingleStepped {
        /// The instruction: its mnemonic and its bytes.
        instruction: String,
    },
    /// Not known for this machine.
    Unknown,
}

/// Where a probe goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The address, before relocation.
    pub address: u64,
    /// The same place in the file: what uprobes are attached by.
    pub file_offset: u64,
    /// What it costs there.
    pub cost: Cost,
    /// How far behind the function's entry it lies, in bytes.
    pub skipped: u32,
    /// What the probe's cookie must say. They are those of the function,
    /// unless its operands have been moved to other argument registers on the
    /// way: then those of the equivalent custom function.
    pub function: Function,
    /// The operands that go with it.
    pub arguments: Arguments,
    /// The function has jumps whose targets are not known.
    pub indirect_jumps: bool,
}

impl Placement {
    /// Whether the operands are elsewhere than at the function's entry.
    pub fn operands_moved(&self, function: Function) -> bool {
        self.function != function
    }
}

/// Why there is no place for a probe.
#[derive(Debug, thiserror::Error)]
pub enum PlacementError {
    /// The code cannot be read.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// The entry is in no part of the file.
    #[error("the function's entry is not in the file")]
    NotInFile,
    /// There is no instruction.
    #[error("the function does not begin with a valid instruction")]
    NotCode,
    /// The kernel takes no probe on any of the instructions that would do.
    #[error("the kernel refuses probes on the function's first instruction ({0})")]
    Refused(String),
}

/// Finds the place for the probe of a function at `entry`, `size` bytes long
/// (0: unknown).
///
/// # Errors
/// See [`PlacementError`].
pub fn place(
    object: &ElfObject,
    entry: u64,
    size: u64,
    function: Function,
    arguments: Arguments,
    emulation: Emulation,
) -> Result<Placement, PlacementError> {
    let file_offset = object.address_to_file_offset(entry).ok_or(PlacementError::NotInFile)?;
    if object.machine() != Machine::X86_64 {
        // aarch64 simulates branches, ADR, literal loads and NOP
        // (arch/arm64/kernel/probes/decode-insn.c). What the rest costs there
        // has not been measured, so nothing is gained by moving yet.
        let at_entry = Placement {
            address: entry,
            file_offset,
            cost: Cost::Unknown,
            skipped: 0,
            function,
            arguments,
            indirect_jumps: false,
        };
        return Ok(at_entry);
    }
    let length = if size == 0 { UNKNOWN_SIZE } else { size.min(MAX_FUNCTION) };
    let code = object.code_at(entry, length as usize)?;
    let found = walk(&code, entry, function, arguments, emulation)?;
    let address = entry.wrapping_add(u64::from(found.skipped));
    let file_offset = object.address_to_file_offset(address).ok_or(PlacementError::NotInFile)?;
    Ok(Placement {
        address,
        file_offset,
        cost: found.cost,
        skipped: found.skipped,
        function: found.function,
        arguments: found.arguments,
        indirect_jumps: found.indirect_jumps,
    })
}
