//! Which pages of a process are in memory, and words on them.

use std::io;
use std::ops::Range;

use crate::scan::memory::{Mapping, Memory, PAGE};

/// Bytes that are read at once: headers lie close together.
const WINDOW: u64 = 256 << 10;

/// Pages that are in memory and the process' own, by address.
#[derive(Debug, Default)]
pub struct Resident {
    runs: Vec<Range<u64>>,
    /// Bytes of the runs before each.
    before: Vec<u64>,
}

impl Resident {
    /// Of these mappings, which are ordered by address.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn of(memory: &Memory, mappings: &[Mapping]) -> io::Result<Self> {
        let mut runs = Vec::new();
        for mapping in mappings.iter().filter(|mapping| !mapping.shared) {
            memory.resident(mapping, &mut runs)?;
        }
        Ok(Self::from_runs(runs))
    }

    fn from_runs(runs: Vec<Range<u64>>) -> Self {
        let before = runs
            .iter()
            .scan(0, |sum, run| {
                let before = *sum;
                *sum += run.end - run.start;
                Some(before)
            })
            .collect();
        Self { runs, before }
    }

    /// How many bytes of a range are in memory.
    pub fn bytes(&self, range: &Range<u64>) -> u64 {
        self.below(range.end).saturating_sub(self.below(range.start))
    }

    /// How many bytes below an address are in memory.
    fn below(&self, address: u64) -> u64 {
        let behind = self.runs.partition_point(|run| run.end <= address);
        match (self.runs.get(behind), self.before.get(behind)) {
            (Some(run), Some(before)) => before + address.saturating_sub(run.start),
            _ => self
                .runs
                .last()
                .map_or(0, |run| self.before.last().copied().unwrap_or(0) + (run.end - run.start)),
        }
    }

    /// The run that holds an address.
    fn run(&self, address: u64) -> Option<&Range<u64>> {
        let behind = self.runs.partition_point(|run| run.end <= address);
        self.runs.get(behind).filter(|run| run.contains(&address))
    }

    /// The runs within a range.
    pub fn within(&self, range: &Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let first = self.runs.partition_point(|run| run.end <= range.start);
        let (start, end) = (range.start, range.end);
        self.runs[first..]
            .iter()
            .take_while(move |run| run.start < end)
            .map(move |run| run.start.max(start)..run.end.min(end))
    }
}

/// Reads words of pages that are in memory: what is in swap stays there, and a page
/// that never was is not made.
#[derive(Debug)]
pub struct Words<'a> {
    memory: &'a Memory,
    resident: &'a Resident,
    words: Vec<u64>,
    window: Range<u64>,
}

impl<'a> Words<'a> {
    /// Of a process.
    pub fn new(memory: &'a Memory, resident: &'a Resident) -> Self {
        Self { memory, resident, words: vec![0; (WINDOW / 8) as usize], window: 0..0 }
    }

    /// The word at an address; `None`: it is not in memory.
    pub fn read(&mut self, address: u64) -> Option<u64> {
        if !address.is_multiple_of(8) {
            return None;
        }
        if !self.window.contains(&address) {
            let run = self.resident.run(address)?;
            let start = address / PAGE * PAGE;
            let end = run.end.min(start + WINDOW);
            let wanted = ((end - start) / 8) as usize;
            let read = self
                .memory
                .read(std::slice::from_ref(&(start..end)), &mut self.words[..wanted])
                .ok()?;
            self.window = start..start + read as u64 * 8;
        }
        if !self.window.contains(&address) {
            return None;
        }
        self.words.get(((address - self.window.start) / 8) as usize).copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Check the bytes of ranges against a count page by page.
        #[test]
        fn same_as_counting(
            pages in prop::collection::btree_set(0u64..64, 0..64),
            start in 0u64..64 * PAGE,
            length in 0u64..64 * PAGE,
        ) {
            let mut runs: Vec<Range<u64>> = Vec::new();
            for page in &pages {
                match runs.last_mut() {
                    Some(run) if run.end == page * PAGE => run.end += PAGE,
                    _ => runs.push(page * PAGE..(page + 1) * PAGE),
                }
            }
            let resident = Resident::from_runs(runs);
            let range = start..start + length;
            let counted: u64 = pages
                .iter()
                .map(|page| {
                    let (begin, end) = (page * PAGE, (page + 1) * PAGE);
                    end.min(range.end).saturating_sub(begin.max(range.start))
                })
                .sum();
            prop_assert_eq!(resident.bytes(&range), counted);
            let within: u64 = resident.within(&range).map(|run| run.end - run.start).sum();
            prop_assert_eq!(within, counted);
        }
    }
}
