//! The straight way from a function's entry, and the places on it.

use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions, FlowControl, InstructionInfoFactory, OpKind};
use leakd_common::cookie::{Arguments, Function};

use super::instruction::{Treatment, describe, treatment};
use super::operand::State;
use super::{Cost, Emulation, PlacementError};

/// How far from the entry a place may be, in bytes.
const MAX_WAY: u64 = 256;

/// A place for a probe.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub skipped: u32,
    pub cost: Cost,
    pub function: Function,
    pub arguments: Arguments,
    pub indirect_jumps: bool,
}

/// Walks from the entry to the first instruction that is emulated; failing
/// that, takes the first on which the kernel allows a probe.
pub(super) fn walk(
    code: &[u8],
    entry: u64,
    function: Function,
    arguments: Arguments,
    emulation: Emulation,
) -> Result<Place, PlacementError> {
    let branches = Branches::of(code, entry);
    let mut state = State::at_entry(function, arguments);
    let mut facts = InstructionInfoFactory::new();
    let mut decoder = Decoder::with_ip(64, code, entry, DecoderOptions::NONE);
    let mut fallback = None;
    let mut first = None;
    while decoder.can_decode() {
        let instruction = decoder.decode();
        let Some(skipped) =
            instruction.ip().checked_sub(entry).filter(|skipped| *skipped < MAX_WAY)
        else {
            break;
        };
        let bytes = &code[skipped as usize..(skipped as usize + instruction.len()).min(code.len())];
        if instruction.is_invalid() {
            break;
        }
        // An instruction that a branch leads to runs more than once a call,
        // and so may every one behind it.
        if branches.lead_into(entry.wrapping_add(1)..instruction.ip().wrapping_add(1)) {
            break;
        }
        first.get_or_insert_with(|| describe(&instruction, bytes));
        let mut treatment = treatment(&instruction, bytes, emulation);
        if treatment == Treatment::EmulatedCall {
            let safe = !state.red_zone_used();
            treatment = if safe { Treatment::Emulated } else { Treatment::Refused };
        }
        if let Some((function, arguments)) = state.probe() {
            let place = |cost| Place {
                skipped: skipped as u32,
                cost,
                function,
                arguments,
                indirect_jumps: branches.indirect,
            };
            match treatment {
                Treatment::Emulated => return Ok(place(Cost::Emulated)),
                Treatment::SingleStepped if fallback.is_none() => {
                    let instruction = describe(&instruction, bytes);
                    fallback = Some(place(Cost::SingleStepped { instruction }));
                }
                _ => {}
            }
        }
        if instruction.flow_control() != FlowControl::Next {
            break;
        }
        state.step(&instruction, &mut facts);
        if state.lost() {
            break;
        }
    }
    match (fallback, first) {
        (Some(place), _) => Ok(place),
        (None, Some(first)) => Err(PlacementError::Refused(first)),
        (None, None) => Err(PlacementError::NotCode),
    }
}

/// Where the branches of a function lead, as far as that is near its entry.
struct Branches {
    targets: Vec<u64>,
    indirect: bool,
}

impl Branches {
    fn of(code: &[u8], entry: u64) -> Self {
        let near = entry..entry.wrapping_add(MAX_WAY);
        let mut branches = Self { targets: Vec::new(), indirect: false };
        let mut decoder = Decoder::with_ip(64, code, entry, DecoderOptions::NONE);
        while decoder.can_decode() {
            let instruction = decoder.decode();
            // Through a slot of the global offset table a function leaves
            // for another one; through a register it may go anywhere.
            branches.indirect |= instruction.flow_control() == FlowControl::IndirectBranch
                && !instruction.is_ip_rel_memory_operand();
            let operand = (instruction.op_count() > 0).then(|| instruction.op0_kind());
            if operand == Some(OpKind::NearBranch64) {
                let target = instruction.near_branch64();
                if near.contains(&target) {
                    branches.targets.push(target);
                }
            }
        }
        branches.targets.sort_unstable();
        branches.targets.dedup();
        branches
    }

    fn lead_into(&self, range: Range<u64>) -> bool {
        self.targets.iter().any(|target| range.contains(target))
    }
}
