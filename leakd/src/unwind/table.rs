//! A table for one file, and how the kernel's walker sees it.

use leakd_common::unwind::{CELL_WORDS, Cell, PAGE_BITS, Rule, TableGeometry};

use crate::unwind::ConvertError;
use crate::unwind::image::Segment;
use crate::unwind::limits::Budget;

/// Offsets inside a page.
const PAGE_MASK: u64 = (1 << PAGE_BITS) - 1;
/// Pages of text in one table: 4 GiB, so that the low 32 bits of an address
/// are enough to tell its addresses apart, which the walker's cache relies on.
pub(crate) const MAX_PAGES: u64 = 1 << (32 - PAGE_BITS);
/// Distinct rules of one table; libLLVM has 729. A file that somebody made up
/// must not fill the table that all share.
pub const MAX_RULES: usize = 4096;

/// What was met while a table was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableStats {
    /// Frame description entries.
    pub entries: u32,
    /// Of these, those that could not be read.
    pub bad_entries: u32,
    /// Those outside the executable segments.
    pub outside: u32,
    /// Those that began inside another one, and were left out.
    pub overlapping: u32,
    /// Rows that the walker cannot follow.
    pub unsupported_rows: u32,
}

/// The unwind table of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Virtual address of the first page, shifted right by [`PAGE_BITS`].
    pub first_page: u32,
    /// Pages.
    pub pages: u32,
    /// For each page, and once more behind the last, the index of the first
    /// row that begins in it or behind it. `pages + 1` elements.
    pub directory: Vec<u32>,
    /// Bits 0..12 the offset in its page, 12..32 the index in `rules`.
    /// Addresses rise from row to row.
    pub rows: Vec<u32>,
    /// This table's own rules, each once.
    pub rules: Vec<Rule>,
    /// The loadable segments, for going from file offsets to addresses.
    pub segments: Vec<Segment>,
    /// What was met.
    pub stats: TableStats,
}

/// A table as the kernel's array holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cells {
    /// The array's elements.
    pub cells: Vec<Cell>,
    /// What goes into the map of geometries.
    pub geometry: TableGeometry,
}

impl Table {
    /// The rule for a virtual address; `None` outside the table. What the
    /// walker in the kernel must find too.
    pub fn find(&self, address: u64) -> Option<Rule> {
        let page = (address >> PAGE_BITS).checked_sub(u64::from(self.first_page))?;
        if page >= u64::from(self.pages) {
            return None;
        }
        let begin = *self.directory.get(page as usize)? as usize;
        let end = *self.directory.get(page as usize + 1)? as usize;
        let offset = (address & PAGE_MASK) as u32;
        let in_page = self.rows.get(begin..end)?;
        let behind = begin + in_page.partition_point(|row| row & PAGE_MASK as u32 <= offset);
        let row = self.rows.get(behind.checked_sub(1)?)?;
        self.rules.get((row >> PAGE_BITS) as usize).copied()
    }

    /// Bytes of kernel memory that the table's cells take.
    pub fn cell_bytes(&self) -> u64 {
        let (directory, rows) = self.cell_counts();
        ((directory + rows) * size_of::<Cell>()) as u64
    }

    /// Cells of the directory and of the rows. Always one word more than there
    /// are rows: the walker looks at the cell where the next row would be.
    fn cell_counts(&self) -> (usize, usize) {
        (self.directory.len().div_ceil(CELL_WORDS), self.rows.len() / CELL_WORDS + 1)
    }

    /// The table for the kernel, with `number` in place of each rule: the rules'
    /// numbers over all tables. Rules that have none (a number above 20 bits or
    /// a missing element) get `unsupported`.
    pub fn cells(&self, numbers: &[u32], unsupported: u32) -> Cells {
        let (directory_cells, row_cells) = self.cell_counts();
        let mut cells = vec![[0; CELL_WORDS]; directory_cells + row_cells];
        let words = cells.as_flattened_mut();
        words[..self.directory.len()].copy_from_slice(&self.directory);
        let row_words = &mut words[directory_cells * CELL_WORDS..];
        for (word, row) in row_words.iter_mut().zip(&self.rows) {
            let number = numbers.get((row >> PAGE_BITS) as usize).copied();
            let number =
                number.filter(|number| number >> (32 - PAGE_BITS) == 0).unwrap_or(unsupported);
            *word = row & PAGE_MASK as u32 | number << PAGE_BITS;
        }
        let geometry = TableGeometry {
            first_page: self.first_page,
            pages: self.pages,
            row_cell: directory_cells as u32,
            reserved: 0,
        };
        Cells { cells, geometry }
    }
}

/// Rules in the builder's shortcut.
const RECENT: usize = 256;

/// Makes a table from rows in rising order.
pub(crate) struct TableBuilder {
    table: Table,
    /// Number of pages that the directory has entries for.
    pages_begun: u64,
    /// The last row, still open to being overwritten.
    pending: Option<(u64, u32)>,
    /// The rule of the last row that has been written.
    written: Option<u32>,
    numbers: std::collections::HashMap<Rule, u32>,
    /// Rules asked for lately, by a cheap hash: most come again soon.
    recent: Box<[Option<(Rule, u32)>; RECENT]>,
}

impl TableBuilder {
    /// For addresses in `begin..end`, `begin < end`.
    pub(crate) fn new(begin: u64, end: u64, budget: &mut Budget) -> Result<Self, ConvertError> {
        let first_page = begin >> PAGE_BITS;
        let pages = ((end - 1) >> PAGE_BITS) - first_page + 1;
        let too_far = ConvertError::Damaged("text spread over more than 4 GiB");
        let Ok(first_page) = u32::try_from(first_page) else { return Err(too_far) };
        if pages > MAX_PAGES {
            return Err(too_far);
        }
        budget.take_bytes("the directory", (pages + 1) * 4)?;
        let directory = Vec::with_capacity(pages as usize + 1);
        let table = Table { first_page, pages: pages as u32, directory, ..Default::default() };
        Ok(Self {
            table,
            pages_begun: 0,
            pending: None,
            written: None,
            numbers: Default::default(),
            recent: Box::new([None; RECENT]),
        })
    }

    /// From `address` on, `rule` holds. A second rule for the same address takes
    /// the first one's place; addresses must not fall.
    pub(crate) fn push(
        &mut self,
        address: u64,
        rule: Rule,
        budget: &mut Budget,
    ) -> Result<(), ConvertError> {
        let number = self.number(rule);
        match &mut self.pending {
            Some(pending) if pending.0 == address => pending.1 = number,
            _ => {
                self.flush(budget)?;
                self.pending = Some((address, number));
            }
        }
        Ok(())
    }

    pub(crate) fn stats(&mut self) -> &mut TableStats {
        &mut self.table.stats
    }

    fn number(&mut self, rule: Rule) -> u32 {
        let slot = (rule.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % RECENT;
        if let Some((recent, number)) = self.recent[slot]
            && recent == rule
        {
            return number;
        }
        let rules = &mut self.table.rules;
        let number = match self.numbers.get(&rule) {
            Some(&number) => number,
            // The last place is kept for the rule that stands for all others.
            None if rules.len() + 1 >= MAX_RULES && rule != Rule::UNSUPPORTED => {
                return self.number(Rule::UNSUPPORTED);
            }
            None => {
                rules.push(rule);
                let number = rules.len() as u32 - 1;
                self.numbers.insert(rule, number);
                number
            }
        };
        self.recent[slot] = Some((rule, number));
        number
    }

    /// Writes the pending row, unless it repeats the one before.
    fn flush(&mut self, budget: &mut Budget) -> Result<(), ConvertError> {
        let Some((address, number)) = self.pending.take() else { return Ok(()) };
        let page = (address >> PAGE_BITS).wrapping_sub(u64::from(self.table.first_page));
        // A last row may begin behind the last page: there is nothing there
        // anyway.
        if self.written == Some(number) || page >= u64::from(self.table.pages) {
            return Ok(());
        }
        self.begin_pages(page + 1);
        budget.grow("the rows", &mut self.table.rows)?;
        self.table.rows.push((address & PAGE_MASK) as u32 | number << PAGE_BITS);
        self.written = Some(number);
        Ok(())
    }

    /// All pages below `count` that have not begun yet begin at the next row.
    fn begin_pages(&mut self, count: u64) {
        let next = self.table.rows.len() as u32;
        while self.pages_begun < count {
            self.table.directory.push(next);
            self.pages_begun += 1;
        }
    }

    /// The table.
    pub(crate) fn finish(mut self, budget: &mut Budget) -> Result<Table, ConvertError> {
        self.flush(budget)?;
        self.begin_pages(u64::from(self.table.pages) + 1);
        Ok(self.table)
    }
}
