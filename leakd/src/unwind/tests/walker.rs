//! The walker's search and step, as the BPF program does them, on user-space
//! copies: what it would find in a table.

use leakd_common::unwind::{CELL_WORDS, Cell, CfaKind, FpKind, Rule};

use crate::unwind::table::Cells;

/// The number of the rule for an address. `Err`: the reason, as a word. Every
/// look-up goes through `get`, as every one in BPF goes through the map.
pub(super) fn find(table: &Cells, address: u64) -> Result<u32, &'static str> {
    let get = |index: u32| table.cells.get(index as usize).ok_or("outside the map");
    let geometry = table.geometry;
    let page = (address >> 12).wrapping_sub(u64::from(geometry.first_page));
    if page >= u64::from(geometry.pages) {
        return Err("no row");
    }
    let page = page as u32;
    let low = (address & 0xfff) as u32;
    let word =
        |index: u32| -> Result<u32, &'static str> { Ok(get(index >> 4)?[(index & 15) as usize]) };
    let (begin, end) = (word(page)?, word(page + 1)?);
    let row_cell = |index: u32| -> Result<&Cell, &'static str> { get(geometry.row_cell + index) };

    // By cells first: only the first row of each is looked at.
    let mut low_cell = begin >> 4;
    let mut high_cell = end.div_ceil(CELL_WORDS as u32);
    for _ in 0..9 {
        let count = high_cell.wrapping_sub(low_cell);
        if count <= 1 || count > 4096 {
            break;
        }
        let middle = low_cell + (count >> 1);
        if row_cell(middle)?[0] & 0xfff <= low { low_cell = middle } else { high_cell = middle }
    }
    // Then inside the cell.
    let cell = row_cell(low_cell)?;
    let base = low_cell << 4;
    let first = begin.saturating_sub(base);
    let mut from = first;
    let mut to = if end < base + 16 { end.wrapping_sub(base) } else { 16 };
    for _ in 0..5 {
        if from >= to {
            break;
        }
        let middle = ((from + to) >> 1) & 15;
        if cell[middle as usize] & 0xfff <= low { from = middle + 1 } else { to = middle }
    }
    if from == first && (from == 0 || base + from <= begin) {
        // Nothing in this page: the last row in front of it still holds.
        let previous = (base + from).checked_sub(1).ok_or("no row")?;
        return Ok(row_cell(previous >> 4)?[(previous & 15) as usize] >> 12);
    }
    Ok(cell[(from.wrapping_sub(1) & 15) as usize] >> 12)
}

/// Registers of a frame, or of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) pc: u64,
    pub(super) sp: u64,
    /// `None`: not known.
    pub(super) fp: Option<u64>,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Caller(Frame),
    Bottom,
    Signal,
    None,
    Unsupported,
}

/// One step by a rule, with memory as a function.
pub(super) fn step(rule: Rule, frame: Frame, memory: impl Fn(u64) -> u64) -> Step {
    let kind = rule.cfa_kind();
    let (sp, fp) = (frame.sp, frame.fp.expect("a frame pointer"));
    let offset = rule.cfa_offset();
    let cfa = if kind == CfaKind::StackPointer as u64 {
        sp.wrapping_add(offset)
    } else if kind == CfaKind::FramePointer as u64 {
        fp.wrapping_add(offset)
    } else if kind == CfaKind::Plt as u64 {
        sp.wrapping_add(if frame.pc & 15 >= rule.extra() { 16 } else { 8 })
    } else if kind == CfaKind::DerefStackPointer as u64 {
        memory(sp.wrapping_add(offset)).wrapping_add(rule.extra() << 3)
    } else if kind == CfaKind::DerefFramePointer as u64 {
        memory(fp.wrapping_add(offset)).wrapping_add(rule.extra() << 3)
    } else if kind == CfaKind::Signal as u64 {
        return Step::Signal;
    } else if kind == CfaKind::Bottom as u64 {
        return Step::Bottom;
    } else if kind == CfaKind::None as u64 {
        return Step::None;
    } else {
        return Step::Unsupported;
    };
    let fp_kind = rule.fp_kind();
    let caller_fp = if fp_kind == FpKind::AtCfa as u64 {
        Some(memory(cfa.wrapping_add(rule.fp_offset())))
    } else if fp_kind == FpKind::AtFramePointer as u64 {
        Some(memory(fp.wrapping_add(rule.fp_offset())))
    } else if fp_kind == FpKind::Same as u64 {
        Some(fp)
    } else {
        None
    };
    let pc = match rule.return_kind() {
        0 => memory(cfa.wrapping_sub(8)),
        1 => LINK,
        _ => {
            // Sign-extended from 7 bits.
            let words = ((rule.extra() << 57) as i64 >> 57) as u64;
            memory(cfa.wrapping_add(rule.fp_offset()).wrapping_add(words.wrapping_mul(8)))
        }
    };
    Step::Caller(Frame { pc, sp: cfa, fp: caller_fp })
}

/// What the link register holds.
pub(super) const LINK: u64 = 0x0123_4567_89ab_cdef;
