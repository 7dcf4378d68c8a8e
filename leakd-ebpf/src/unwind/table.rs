//! Which rule holds at an address: two binary searches, over the cells of a
//! page and within a cell.

use crate::support::lookup;
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
    let mut high_cell = (end + CELL_MASK) >> CELL_SHIFT;
    let mut step = 0;
    while step < CELL_STEPS {
        let width = high_cell.wrapping_sub(low_cell);
        if width <= 1 || width > 4096 {
            break;
        }
        let middle = low_cell + (width >> 1);
        let Some(rows) = cell(map, row_cell + middle) else {
            return failure(StackEnd::Internal);
        };
        if word(rows, 0) & LOW_BITS <= low {
            low_cell = middle;
        } else {
            high_cell = middle;
        }
        step += 1;
    }

    // The last row of it that does not.
    let Some(rows) = cell(map, row_cell + low_cell) else {
        return failure(StackEnd::Internal);
    };
    let base = low_cell << CELL_SHIFT;
    let start = first.saturating_sub(base);
    let mut a = start;
    let mut b =
        if end < base + CELL_WORDS as u32 { end.wrapping_sub(base) } else { CELL_WORDS as u32 };
    let mut step = 0;
    while step < ROW_STEPS {
        if a >= b {
            break;
        }
        let middle = ((a + b) >> 1) & CELL_MASK;
        if word(rows, middle) & LOW_BITS <= low {
            a = middle + 1;
        } else {
            b = middle;
        }
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
