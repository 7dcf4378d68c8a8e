//! Where a function's operands are while its first instructions run.

use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use leakd_common::cookie::{Arguments, Function};

/// The argument registers of the x86-64 System V ABI, in their order.
const ARGUMENTS: [Register; 6] =
    [Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9];

/// Which operands a function has: their argument numbers, counted from 1; 0:
/// none.
fn positions(function: Function, arguments: Arguments) -> Arguments {
    let at = |size, count, pointer| Arguments { size, count, pointer };
    match function {
        Function::Malloc | Function::New | Function::Valloc => at(1, 0, 0),
        Function::Calloc => at(2, 1, 0),
        Function::Realloc => at(2, 0, 1),
        Function::Reallocarray => at(3, 2, 1),
        Function::Memalign => at(2, 0, 0),
        Function::PosixMemalign => at(3, 0, 1),
        Function::Free => at(0, 0, 1),
        Function::CustomAllocate | Function::CustomFree => arguments,
    }
}

/// One operand: where it was, and in which registers it is now.
#[derive(Clone, Debug)]
struct Operand {
    position: u8,
    registers: Vec<Register>,
}

impl Operand {
    fn new(position: u8) -> Self {
        let register = usize::from(position).checked_sub(1).and_then(|at| ARGUMENTS.get(at));
        Self { position, registers: register.copied().into_iter().collect() }
    }

    /// The argument register it is in, as an argument number; its own if it
    /// is still there.
    fn argument(&self) -> Option<u8> {
        if self.position == 0 {
            return Some(0);
        }
        let own = ARGUMENTS.get(usize::from(self.position) - 1)?;
        if self.registers.contains(own) {
            return Some(self.position);
        }
        let at = ARGUMENTS.iter().position(|register| self.registers.contains(register))?;
        Some(at as u8 + 1)
    }
}

/// The operands of a function and the state of the stack, along its way.
pub(super) struct State {
    function: Function,
    arguments: Arguments,
    size: Operand,
    count: Operand,
    pointer: Operand,
    stack_moved: bool,
    red_zone_used: bool,
}

impl State {
    pub(super) fn at_entry(function: Function, arguments: Arguments) -> Self {
        let positions = positions(function, arguments);
        Self {
            function,
            arguments,
            size: Operand::new(positions.size),
            count: Operand::new(positions.count),
            pointer: Operand::new(positions.pointer),
            stack_moved: false,
            red_zone_used: false,
        }
    }

    /// Follows an instruction that leads to the next one.
    pub(super) fn step(&mut self, instruction: &Instruction, facts: &mut InstructionInfoFactory) {
        let facts = facts.info(instruction);
        let mut written = Vec::new();
        for used in facts.used_registers() {
            if writes(used.access()) {
                written.push(used.register().full_register());
            }
        }
        self.stack_moved |= written.contains(&Register::RSP);
        self.red_zone_used |= facts.used_memory().iter().any(|memory| {
            writes(memory.access()) && memory.base().full_register() == Register::RSP
        });
        let copy = (instruction.mnemonic() == Mnemonic::Mov
            && instruction.op0_kind() == OpKind::Register
            && instruction.op1_kind() == OpKind::Register
            && instruction.op0_register().is_gpr64()
            && instruction.op1_register().is_gpr64())
        .then(|| (instruction.op0_register(), instruction.op1_register()));
        for operand in [&mut self.size, &mut self.count, &mut self.pointer] {
            let copied = copy.filter(|(_, from)| operand.registers.contains(from));
            operand.registers.retain(|register| !written.contains(register));
            if let Some((to, _)) = copied {
                operand.registers.push(to);
            }
        }
    }

    /// Whether the word below the stack pointer may hold something.
    pub(super) fn red_zone_used(&self) -> bool {
        self.red_zone_used
    }

    /// What a probe at this point has to be told, if it can be here.
    pub(super) fn probe(&self) -> Option<(Function, Arguments)> {
        if self.stack_moved && !self.function.frees() {
            return None;
        }
        let now = Arguments {
            size: self.size.argument()?,
            count: self.count.argument()?,
            pointer: self.pointer.argument()?,
        };
        if now == positions(self.function, self.arguments) {
            return Some((self.function, self.arguments));
        }
        match self.function {
            Function::Free | Function::CustomFree => Some((Function::CustomFree, now)),
            // No custom function takes a block and returns another.
            Function::Realloc | Function::Reallocarray => None,
            _ => Some((Function::CustomAllocate, now)),
        }
    }

    /// Whether an operand is in no argument register any more: it is in none
    /// further on, either, or at least the way is not worth following.
    pub(super) fn lost(&self) -> bool {
        (self.stack_moved && !self.function.frees())
            || [&self.size, &self.count, &self.pointer]
                .iter()
                .any(|operand| operand.position != 0 && operand.registers.is_empty())
    }
}

fn writes(access: OpAccess) -> bool {
    !matches!(access, OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess)
}
