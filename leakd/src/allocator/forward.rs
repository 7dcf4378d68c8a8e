//! Functions that only pass a call on to another function of the allocator.
//!
//! operator new of libstdc++ calls malloc; in a statically linked C++ program
//! both are in one object. mimalloc's posix_memalign jumps to
//! mi_posix_memalign; glibc's reallocarray to realloc. Such a function needs
//! no probe: the one it leads to sees the block, and a second trap is saved.
//!
//! The rule: a function forwards if every path through it that returns has
//! gone through a call of, or a jump to, a probed function of the same sort
//! (allocates, resizes, frees). "Calls malloc somewhere" would not do:
//! jemalloc's operator new carves the block out itself and calls malloc only
//! to try again after a new-handler. Two paths more are allowed: those that
//! do not return (they throw), and, except for posix_memalign, those that
//! return a constant (a null pointer for an overflow): a constant is no
//! block.
//!
//! Direct jumps are followed wherever they lead, direct calls two deep,
//! stubs of the procedure linkage table by the relocation of their slot. What
//! is not understood counts as not forwarding: then both are probed, and the
//! kernel side counts only the outer one.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
    OpKind, Register,
};
use leakd_common::cookie::Function;

use crate::elf::{ElfObject, Machine};

/// Calls that are followed one within the other.
const DEPTH: u32 = 2;
/// Instructions that are looked at for one function.
const MAX_INSTRUCTIONS: u32 = 4096;
/// Instructions that are looked at for one object: real ones take some
/// thousand; each may cost a read from the file.
const MAX_ALL_INSTRUCTIONS: u32 = 1 << 18;
/// Code that is read at once.
const WINDOW: usize = 4096;
/// No x86 instruction is longer.
const MAX_LENGTH: usize = 15;

/// What a function does with blocks; a call may be passed on only to a
/// function of the same sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Allocates,
    Resizes,
    Frees,
}

fn sort(function: Function) -> Sort {
    match function {
        Function::Free | Function::CustomFree => Sort::Frees,
        Function::Realloc | Function::Reallocarray => Sort::Resizes,
        _ => Sort::Allocates,
    }
}

/// Code of one object, with what is known of the functions in it.
pub(super) struct Forwarding<'o> {
    object: &'o ElfObject,
    /// Function entries that are probed (so far).
    functions: HashMap<u64, Function>,
    /// Slots of the global offset table: the entries they lead to.
    slots: HashMap<u64, u64>,
    /// For a function found to forward: the ones that it relies on.
    relies: HashMap<u64, HashSet<u64>>,
    left: u32,
    window: RefCell<(u64, Vec<u8>)>,
}

/// One search through a function.
struct Search {
    entry: u64,
    sort: Sort,
    constants: bool,
    left: u32,
    through: HashSet<u64>,
}

impl<'o> Forwarding<'o> {
    pub(super) fn new(
        object: &'o ElfObject,
        functions: HashMap<u64, Function>,
        slots: HashMap<u64, u64>,
    ) -> Self {
        let window = RefCell::new((0, Vec::new()));
        let (relies, left) = (HashMap::new(), MAX_ALL_INSTRUCTIONS);
        Self { object, functions, slots, relies, left, window }
    }

    /// Finds out whether the function at `entry` only passes calls on. One
    /// that does is not relied on in a circle later.
    pub(super) fn examine(&mut self, entry: u64) {
        let Some(function) = self.functions.get(&entry).copied() else { return };
        if self.object.machine() != Machine::X86_64 {
            return;
        }
        let mut search = Search {
            entry,
            sort: sort(function),
            constants: function != Function::PosixMemalign,
            left: MAX_INSTRUCTIONS.min(self.left),
            through: HashSet::new(),
        };
        let granted = search.left;
        let forwards = self.always_passes(entry, DEPTH, &mut search);
        self.left -= granted - search.left;
        if forwards {
            self.relies.insert(entry, search.through);
        }
    }

    /// Whether the function at `entry` was found to pass calls on only.
    pub(super) fn is_forwarding(&self, entry: u64) -> bool {
        self.relies.contains_key(&entry)
    }

    /// The functions that a forwarding one leads to.
    pub(super) fn relied_on_by(&self, entry: u64) -> impl Iterator<Item = u64> + '_ {
        self.relies.get(&entry).into_iter().flatten().copied()
    }

    fn always_passes(&self, start: u64, depth: u32, search: &mut Search) -> bool {
        let mut facts = InstructionInfoFactory::new();
        let mut seen = HashSet::new();
        let mut open = vec![(start, false)];
        let mut passed = false;
        while let Some((address, constant)) = open.pop() {
            if !seen.insert((address, constant)) {
                continue;
            }
            search.left = search.left.saturating_sub(1);
            let Some(instruction) = self.decode(address).filter(|_| search.left > 0) else {
                return false;
            };
            match instruction.flow_control() {
                FlowControl::Next => {
                    let constant = result_is_constant(&instruction, &mut facts, constant);
                    open.push((instruction.next_ip(), constant));
                }
                FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
                    let target = instruction.near_branch_target();
                    if self.reaches(target, search) {
                        passed = true;
                    } else {
                        open.push((target, constant));
                    }
                    if instruction.flow_control() == FlowControl::ConditionalBranch {
                        open.push((instruction.next_ip(), constant));
                    }
                }
                FlowControl::Call if instruction.op0_kind() == OpKind::NearBranch64 => {
                    let target = instruction.near_branch_target();
                    if self.reaches(target, search)
                        || (depth > 0 && self.callee_passes(target, depth - 1, search))
                    {
                        passed = true;
                    } else {
                        open.push((instruction.next_ip(), false));
                    }
                }
                FlowControl::IndirectCall => match self.slot_target(&instruction) {
                    Some(target) if self.reaches(target, search) => passed = true,
                    _ => open.push((instruction.next_ip(), false)),
                },
                FlowControl::IndirectBranch => match self.slot_target(&instruction) {
                    Some(target) if self.reaches(target, search) => passed = true,
                    _ => return false,
                },
                FlowControl::Return if search.constants && constant => {}
                // int3 and ud2: no path returns from there.
                FlowControl::Interrupt | FlowControl::Exception => {}
                _ => return false,
            }
        }
        passed
    }

    /// A callee has to pass on every path that returns: what it returns as a
    /// constant, its caller may take for anything.
    fn callee_passes(&self, target: u64, depth: u32, search: &mut Search) -> bool {
        let constants = std::mem::replace(&mut search.constants, false);
        let through = search.through.clone();
        let passes = self.always_passes(target, depth, search);
        search.constants = constants;
        if !passes {
            search.through = through;
        }
        passes
    }

    /// Whether a jump or call to `target` passes the call on.
    fn reaches(&self, target: u64, search: &mut Search) -> bool {
        let of_the_sort =
            self.functions.get(&target).is_some_and(|function| sort(*function) == search.sort);
        let reaches =
            target != search.entry && of_the_sort && !self.relies_on(target, search.entry);
        if reaches {
            search.through.insert(target);
        }
        reaches
    }

    fn relies_on(&self, from: u64, on: u64) -> bool {
        let mut seen = HashSet::new();
        let mut open = vec![from];
        while let Some(next) = open.pop() {
            if next == on {
                return true;
            }
            if seen.insert(next) {
                open.extend(self.relies.get(&next).into_iter().flatten());
            }
        }
        false
    }

    fn slot_target(&self, instruction: &Instruction) -> Option<u64> {
        let through_slot =
            instruction.op0_kind() == OpKind::Memory && instruction.is_ip_rel_memory_operand();
        through_slot.then(|| self.slots.get(&instruction.ip_rel_memory_address()).copied())?
    }

    fn decode(&self, address: u64) -> Option<Instruction> {
        let mut window = self.window.borrow_mut();
        let (start, code) = &mut *window;
        let end = start.wrapping_add(code.len() as u64);
        let inside = *start <= address && address < end;
        let whole = inside && end - address >= MAX_LENGTH as u64;
        if !whole {
            *code = self.object.code_at(address, WINDOW).ok()?;
            *start = address;
        }
        let bytes = code.get(usize::try_from(address - *start).ok()?..)?;
        let mut decoder = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE);
        Some(decoder.decode()).filter(|instruction| !instruction.is_invalid())
    }
}

/// Whether rax holds a constant after the instruction.
fn result_is_constant(
    instruction: &Instruction,
    facts: &mut InstructionInfoFactory,
    before: bool,
) -> bool {
    let writes_result = facts.info(instruction).used_registers().iter().any(|used| {
        used.register().full_register() == Register::RAX
            && !matches!(used.access(), OpAccess::None | OpAccess::Read | OpAccess::CondRead)
    });
    if !writes_result {
        return before;
    }
    let to = instruction.op0_kind() == OpKind::Register
        && matches!(instruction.op0_register(), Register::EAX | Register::RAX);
    let zeroed = instruction.mnemonic() == Mnemonic::Xor
        && instruction.op1_kind() == OpKind::Register
        && instruction.op0_register() == instruction.op1_register();
    let set = instruction.mnemonic() == Mnemonic::Mov
        && matches!(
            instruction.op1_kind(),
            OpKind::Immediate32 | OpKind::Immediate64 | OpKind::Immediate32to64
        );
    to && (zeroed || set)
}
