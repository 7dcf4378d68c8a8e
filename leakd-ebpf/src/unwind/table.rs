//! Which rule holds at an address: two binary searches, over the cells of a
//! page and within a cell.

use crate::support::{lookup, opaque};
use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps},
    macros::btf_map,
};
use core::ffi::c_void;
use leakd_common::{
    event::StackEnd,
    unwind::{CELL_WORDS, Cell, PAGE_BITS, TABLES as MAX_TABLES},
};

const MMAPABLE: usize = 0x400; // BPF_F_MMAPABLE
const INNER_MAP: usize = 0x1000; // BPF_F_INNER_MAP: inner arrays may differ in length

/// One array of cells for each table.
#[btf_map]
static TABLES: ArrayOfMaps<Array<Cell, 1, { MMAPABLE | INNER_MAP }>, MAX_TABLES> =
    ArrayOfMaps::new();

const LOW_BITS: u32 = (1 << PAGE_BITS) - 1;
const CELL_MASK: u32 = CELL_WORDS as u32 - 1;
const CELL_SHIFT: u32 = CELL_WORDS.trailing_zeros();
/// A page has at most 4,096 rows, in 257 cells.
const CELL_STEPS: u32 = 9;
/// A cell has 16 rows.
const ROW_STEPS: u32 = 5;

/// Results above this are u64::MAX minus a [`StackEnd`].
pub const LAST_RULE: u64 = u64::MAX - 64;

#[inline(always)]
const fn failure(end: StackEnd) -> u64 {
    u64::MAX - end as u64
}

#[inline(always)]
fn cell(table: *const c_void, index: u32) -> Option<*mut Cell> {
    lookup::<u32, Cell>(table, &index)
}

#[inline(always)]
fn word(cell: *mut Cell, index: u32) -> u32 {
    // SAFETY: array values are never freed while the program runs, and the
    // mask keeps the index below the cell's length.
    unsafe { (*cell)[(index & CELL_MASK) as usize] }
}

/// All ones if a row begins at `low` or before, else 0: without a branch, or the
/// verifier would follow every way through the searches, 30,000 instructions.
#[inline(always)]
fn begins_by(row: u32, low: u32) -> u32 {
    // The sign of the difference; LLVM makes a branch of what it sees through.
    let difference = opaque((row & LOW_BITS).wrapping_sub(low + 1));
    (difference.cast_signed() >> 31).cast_unsigned()
}

/// The number of the rule for a virtual address of a table, or a failure.
///
/// `geometry` is (first page << 32 | pages).
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn find_rule(table: u32, address: u64, geometry: u64, row_cell: u32) -> u64 {
    let first_page = geometry >> 32;
    let pages = geometry as u32;
    let page = (address >> PAGE_BITS).wrapping_sub(first_page);
    if page >= u64::from(pages) {
        return failure(StackEnd::NoRow);
    }
    let page = page as u32;
    let low = address as u32 & LOW_BITS;
    let Some(map) = lookup::<u32, c_void>((&raw const TABLES).cast(), &table) else {
        return failure(StackEnd::NoTable);
    };
    let map = map.cast_const();

    // The rows of this page are first..end.
    let Some(directory) = cell(map, page >> CELL_SHIFT) else {
        return failure(StackEnd::Internal);
    };
    let first = word(directory, page);
    let next = page + 1;
    let end = if next >> CELL_SHIFT == page >> CELL_SHIFT {
        word(directory, next)
    } else {
        let Some(directory) = cell(map, next >> CELL_SHIFT) else {
            return failure(StackEnd::Internal);
        };
        word(directory, 0)
    };

    // The last cell whose first row does not begin behind the address.
    let mut low_cell = first >> CELL_SHIFT;
    let mut width = ((end + CELL_MASK) >> CELL_SHIFT).wrapping_sub(low_cell);
    let mut step = 0;
    while step < CELL_STEPS {
        if width <= 1 || width > 4096 {
            break;
        }
        let half = width >> 1;
        let Some(rows) = cell(map, row_cell + low_cell + half) else {
            return failure(StackEnd::Internal);
        };
        low_cell += half & begins_by(word(rows, 0), low);
        width -= half;
        step += 1;
    }

    // The last row of it that does not.
    let Some(rows) = cell(map, row_cell + low_cell) else {
        return failure(StackEnd::Internal);
    };
    let base = low_cell << CELL_SHIFT;
    let start = first.saturating_sub(base);
    let mut a = start;
    let mut count =
        if end < base + CELL_WORDS as u32 { end.wrapping_sub(base) } else { CELL_WORDS as u32 }
            .saturating_sub(start);
    let mut step = 0;
    while step < ROW_STEPS {
        if count == 0 {
            break;
        }
        let half = count >> 1;
        let begins = begins_by(word(rows, a + half), low);
        a += (half + 1) & begins;
        count = half - (!count & 1 & begins);
        step += 1;
    }
    if a == start && base + a <= first {
        // Every row of this page begins later: the last one before it holds.
        let row = base + a;
        if row == 0 {
            return failure(StackEnd::NoRow);
        }
        let row = row - 1;
        let Some(rows) = cell(map, row_cell + (row >> CELL_SHIFT)) else {
            return failure(StackEnd::Internal);
        };
        return u64::from(word(rows, row) >> PAGE_BITS);
    }
    u64::from(word(rows, a.wrapping_sub(1)) >> PAGE_BITS)
}
