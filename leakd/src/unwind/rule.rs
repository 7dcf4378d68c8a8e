//! One row of call frame information to one [`Rule`].

use gimli::{
    CfaRule, Encoding, Expression, Operation, Register, RegisterRule, UnwindExpression,
    UnwindSection, UnwindTableRow,
};
use leakd_common::unwind::{CfaKind, FpKind, Rule};

use crate::unwind::entries::{Bytes, Fde};
use crate::unwind::image::Architecture;

/// DWARF numbers of the registers that the walker follows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registers {
    stack_pointer: Register,
    frame_pointer: Register,
    /// Holds the return address when a function begins; none on x86-64, where
    /// the call puts it on the stack.
    link: Option<Register>,
}

impl Registers {
    /// Numbers: System V ABI for AMD64, figure 3.36; DWARF for the Arm 64-bit
    /// Architecture, section 4.1.
    pub(crate) fn of(architecture: Architecture) -> Self {
        match architecture {
            Architecture::X86_64 => {
                Self { stack_pointer: Register(7), frame_pointer: Register(6), link: None }
            }
            Architecture::Aarch64 => Self {
                stack_pointer: Register(31),
                frame_pointer: Register(29),
                link: Some(Register(30)),
            },
        }
    }
}

/// Translates rows of one FDE.
pub(crate) struct Translator<'a, 'data, S> {
    registers: Registers,
    section: &'a S,
    encoding: Encoding,
    return_register: Register,
    signal: bool,
    data: std::marker::PhantomData<&'data ()>,
}

impl<'a, 'data, S: UnwindSection<Bytes<'data>>> Translator<'a, 'data, S> {
    pub(crate) fn new(registers: Registers, section: &'a S, fde: &Fde<'data>) -> Self {
        Self {
            registers,
            section,
            encoding: fde.cie().encoding(),
            return_register: fde.cie().return_address_register(),
            signal: fde.is_signal_trampoline(),
            data: std::marker::PhantomData,
        }
    }

    /// The rule of a row; [`Rule::UNSUPPORTED`] where the walker has none.
    pub(crate) fn rule<C>(&self, row: &UnwindTableRow<usize, C>) -> Rule
    where
        C: gimli::UnwindContextStorage<usize>,
    {
        self.pack(row).unwrap_or(Rule::UNSUPPORTED)
    }

    fn pack<C>(&self, row: &UnwindTableRow<usize, C>) -> Option<Rule>
    where
        C: gimli::UnwindContextStorage<usize>,
    {
        let return_rule = row.register(self.return_register);
        // The first frame of a thread, or of a context made by makecontext.
        if matches!(return_rule, Some(RegisterRule::Undefined)) {
            return Some(Rule::BOTTOM);
        }
        if self.signal && self.is_signal_frame(row.cfa()) {
            return Some(Rule::SIGNAL);
        }
        let (cfa, cfa_offset, extra) = self.cfa(row.cfa())?;
        let (fp, fp_offset) = self.frame_pointer(row.register(self.registers.frame_pointer));
        match (return_rule, self.registers.link) {
            (Some(RegisterRule::Offset(-8)), None) => {
                Rule::pack(cfa, cfa_offset, extra, fp, fp_offset)
            }
            (None | Some(RegisterRule::SameValue), Some(_)) => {
                Rule::pack(cfa, cfa_offset, extra, fp, fp_offset).map(Rule::with_return_in_link)
            }
            (Some(RegisterRule::Offset(offset)), Some(_)) => {
                Rule::pack_saved_link(cfa, cfa_offset, fp, fp_offset, offset)
            }
            _ => None,
        }
    }

    /// Kind, offset and extra operand for the canonical frame address.
    fn cfa(&self, rule: &CfaRule<usize>) -> Option<(CfaKind, i64, u8)> {
        match *rule {
            CfaRule::RegisterAndOffset { register, offset } => {
                if register == self.registers.stack_pointer {
                    Some((CfaKind::StackPointer, offset, 0))
                } else if register == self.registers.frame_pointer {
                    Some((CfaKind::FramePointer, offset, 0))
                } else {
                    // Any register can hold it for some instructions while a
                    // stack is realigned; the walker knows only two.
                    None
                }
            }
            CfaRule::Expression(ref expression) => {
                let expression = expression.get(self.section).ok()?;
                if let Some(threshold) = plt_threshold(expression.0.slice()) {
                    return Some((CfaKind::Plt, 0, threshold));
                }
                let (register, offset, addend) = self.dereference(expression)?;
                let kind = if register == self.registers.stack_pointer {
                    CfaKind::DerefStackPointer
                } else if register == self.registers.frame_pointer {
                    CfaKind::DerefFramePointer
                } else {
                    return None;
                };
                let words =
                    if addend % 8 == 0 { u8::try_from(addend / 8).ok()? } else { return None };
                Some((kind, offset, words))
            }
        }
    }

    /// `*(register + offset) + addend`, as gcc writes it where it realigns the
    /// stack and as assembler authors do where they save the stack pointer.
    fn dereference(&self, expression: Expression<Bytes<'data>>) -> Option<(Register, i64, u64)> {
        let mut operations = expression.operations(self.encoding);
        let Operation::RegisterOffset { register, offset, .. } = operations.next().ok()?? else {
            return None;
        };
        let Operation::Deref { size: 8, space: false, .. } = operations.next().ok()?? else {
            return None;
        };
        let mut addend = 0u64;
        while let Some(operation) = operations.next().ok()? {
            let Operation::PlusConstant { value } = operation else { return None };
            addend = addend.checked_add(value)?;
        }
        Some((register, offset, addend))
    }

    fn frame_pointer(&self, rule: Option<RegisterRule<usize>>) -> (FpKind, i64) {
        match rule {
            None | Some(RegisterRule::SameValue) => (FpKind::Same, 0),
            Some(RegisterRule::Offset(offset)) => (FpKind::AtCfa, offset),
            Some(RegisterRule::Expression(expression)) => {
                match self.at_frame_pointer(&expression) {
                    Some(offset) => (FpKind::AtFramePointer, offset),
                    None => (FpKind::Unknown, 0),
                }
            }
            Some(_) => (FpKind::Unknown, 0),
        }
    }

    /// The offset of a location that is frame pointer plus offset.
    fn at_frame_pointer(&self, expression: &UnwindExpression<usize>) -> Option<i64> {
        let mut operations = expression.get(self.section).ok()?.operations(self.encoding);
        let Operation::RegisterOffset { register, offset, .. } = operations.next().ok()?? else {
            return None;
        };
        let last = operations.next().ok()?.is_none();
        (last && register == self.registers.frame_pointer).then_some(offset)
    }

    /// Whether a row of an entry marked as a signal trampoline describes the
    /// kernel's frame: on x86-64 the interrupted stack pointer, read from it.
    fn is_signal_frame(&self, cfa: &CfaRule<usize>) -> bool {
        if self.registers.link.is_some() {
            return true;
        }
        /// uc_mcontext.gregs[REG_RSP] in ucontext_t, which is where the stack
        /// pointer is once the handler has returned.
        const SAVED_STACK_POINTER: i64 = 160;
        let CfaRule::Expression(expression) = cfa else { return false };
        let Ok(expression) = expression.get(self.section) else { return false };
        let wanted = (self.registers.stack_pointer, SAVED_STACK_POINTER, 0);
        self.dereference(expression) == Some(wanted)
    }
}

/// The linker's expression for .plt: `breg7 8; breg16 0; lit15; and; litN; ge;
/// lit3; shl; plus`, the stack pointer plus 8, and 8 more once `pc & 15` has
/// reached N, the end of the stub's push.
fn plt_threshold(expression: &[u8]) -> Option<u8> {
    match *expression {
        [0x77, 8, 0x80, 0, 0x3f, 0x1a, literal @ 0x30..=0x4f, 0x2a, 0x33, 0x24, 0x22] => {
            Some(literal - 0x30)
        }
        _ => None,
    }
}
