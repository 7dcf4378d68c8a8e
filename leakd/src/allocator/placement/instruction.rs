//! What the kernel does with a probe on an x86-64 instruction
//! (arch/x86/kernel/uprobes.c).

use iced_x86::{FlowControl, Instruction, Mnemonic};

/// What the running kernel emulates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Emulation {
    /// Multi-byte NOPs: Linux 6.16 and later ("uprobes/x86: Add support to
    /// emulate nop instructions").
    pub long_nops: bool,
}

impl Emulation {
    /// What every kernel emulates that leakd runs on: `push`, one-byte `nop`,
    /// relative `jmp` and `call`, conditional jumps.
    pub const LEAST: Self = Self { long_nops: false };

    /// What the running kernel emulates.
    pub fn of_running_kernel() -> Self {
        std::fs::read_to_string("/proc/sys/kernel/osrelease")
            .map_or(Self::LEAST, |release| Self::of_release(&release))
    }

    /// What a kernel of this release ("6.18.44-generic") emulates.
    pub fn of_release(release: &str) -> Self {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Self { long_nops: (major, minor) >= (6, 16) },
            _ => Self::LEAST,
        }
    }
}

/// What happens to a probe on an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Treatment {
    Emulated,
    /// Emulated, too; but from Linux 6.18 on the kernel may turn the NOP into
    /// a call, which overwrites the word below the stack pointer.
    EmulatedCall,
    SingleStepped,
    Refused,
}

/// The kernel's `x86_nops`, as far as they begin with no prefix that it
/// refuses.
const LONG_NOPS: [&[u8]; 7] = [
    &[0x66, 0x90],
    &[0x0f, 0x1f, 0x00],
    &[0x0f, 0x1f, 0x40, 0x00],
    &[0x0f, 0x1f, 0x44, 0x00, 0x00],
    &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
    &[0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00],
    &[0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
];

/// Tells what the kernel does with a probe on the instruction with these
/// bytes.
pub(super) fn treatment(
    instruction: &Instruction,
    bytes: &[u8],
    emulation: Emulation,
) -> Treatment {
    match bytes {
        // push_setup_xol_ops: one byte, or two with REX.B alone
        [0x50..=0x57] | [0x41, 0x50..=0x57] => Treatment::Emulated,
        // branch_setup_xol_ops; with an operand-size prefix it refuses them,
        // other prefixes are left alone here because nothing is gained
        [0x90] | [0xeb | 0x70..=0x7f, _] | [0xe8 | 0xe9, _, _, _, _] => Treatment::Emulated,
        [0x0f, 0x80..=0x8f, _, _, _, _] => Treatment::Emulated,
        nop if emulation.long_nops && LONG_NOPS.contains(&nop) => {
            if nop.len() == 5 {
                Treatment::EmulatedCall
            } else {
                Treatment::Emulated
            }
        }
        _ if refused(instruction, bytes) => Treatment::Refused,
        _ => Treatment::SingleStepped,
    }
}

/// `is_prefix_bad`, the bits missing from `good_insns_64` and
/// `good_2byte_insns`, and `insn_masking_exception`: as far as a compiler
/// emits such instructions. To think one refused that is not only costs the
/// place.
fn refused(instruction: &Instruction, bytes: &[u8]) -> bool {
    let is_prefix =
        |byte: &&u8| matches!(**byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3);
    let mut prefixes = bytes.iter().take_while(is_prefix);
    if prefixes.any(|byte| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0xf0)) {
        return true;
    }
    let branches_by_word =
        bytes.first() == Some(&0x66) && !matches!(instruction.flow_control(), FlowControl::Next);
    branches_by_word
        || instruction.is_privileged()
        || matches!(
            instruction.flow_control(),
            FlowControl::Interrupt | FlowControl::Exception | FlowControl::XbeginXabortXend
        )
        || matches!(
            instruction.mnemonic(),
            Mnemonic::INVALID
                | Mnemonic::Syscall
                | Mnemonic::Sysenter
                | Mnemonic::Hlt
                | Mnemonic::Cli
                | Mnemonic::Sti
                | Mnemonic::In
                | Mnemonic::Out
                | Mnemonic::Insb
                | Mnemonic::Insw
                | Mnemonic::Insd
                | Mnemonic::Outsb
                | Mnemonic::Outsw
                | Mnemonic::Outsd
                | Mnemonic::Lar
                | Mnemonic::Lsl
                | Mnemonic::Iretq
                | Mnemonic::Iretd
                | Mnemonic::Retf
        )
        || (instruction.mnemonic() == Mnemonic::Mov
            && instruction.op0_register().is_segment_register())
}

/// An instruction for people: its mnemonic and its bytes.
pub(super) fn describe(instruction: &Instruction, bytes: &[u8]) -> String {
    let mut text = format!("{:?}", instruction.mnemonic()).to_lowercase();
    for (index, byte) in bytes.iter().enumerate() {
        let separator = if index == 0 { ": " } else { " " };
        text += &format!("{separator}{byte:02x}");
    }
    text
}
