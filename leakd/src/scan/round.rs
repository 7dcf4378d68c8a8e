//! One look at a process: its registers and its memory.

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::allocator::Allocator;
use super::graph::{Pointers, Reach};
use super::index::BlockIndex;
use super::memory::{Kind, Mapping, Memory};
use super::pass::{ADDRESS_MASK, Look, Pass, UNIT, units};
use super::stacks;

/// How often what could not be read is tried again.
const TRIES: u32 = 3;

/// What a look needs to know.
#[derive(Debug)]
pub struct Round<'a> {
    /// The memory.
    pub memory: &'a Memory,
    /// The blocks to look for.
    pub index: &'a BlockIndex,
    /// All blocks and their classes, if `index` has not all of them.
    pub known: Option<(&'a BlockIndex, &'a [Reach])>,
    /// What the allocator has where.
    pub allocator: &'a Allocator,
    /// Only these grains, and what is new; `None`: everything.
    pub only: Option<Hot<'a>>,
    /// Bytes of which sums are taken; 0: none.
    pub grain: u64,
    /// Threads to do it with.
    pub threads: usize,
    /// When it must be over.
    pub deadline: Option<Instant>,
}

/// What is to be looked at again.
#[derive(Clone, Copy, Debug)]
pub struct Hot<'a> {
    /// Grains that have changed.
    pub grains: &'a HashSet<u64>,
    /// All that were looked at.
    pub known: &'a HashMap<u64, u64>,
    /// Bytes of a grain.
    pub grain: u64,
}

/// What a look found.
#[derive(Debug)]
pub struct Found {
    /// What is in memory.
    pub pass: Pass,
    /// Bytes that are there and could not be read.
    pub unreadable: u64,
    /// How long it took to read.
    pub took: Duration,
    /// It was not done in time.
    pub late: bool,
}

impl Round<'_> {
    /// Looks at memory; `stack_pointers`: those of threads, as far as known.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn look(&self, stack_pointers: &[u64]) -> io::Result<Found> {
        let begin = Instant::now();
        let mut units = self.units(stack_pointers, None)?;
        let mut found =
            Found { pass: self.pass(&units)?, unreadable: 0, took: begin.elapsed(), late: false };
        for _ in 0..TRIES {
            if found.pass.unread.is_empty() || found.pass.late {
                break;
            }
            // Gone since, or replaced by something else.
            let unread = std::mem::take(&mut found.pass.unread);
            units = self.units(stack_pointers, Some(&unread))?;
            found.pass.append(self.pass(&units)?);
        }
        found.unreadable = found.pass.unread.iter().map(|range| range.end - range.start).sum();
        found.late = found.pass.late;
        found.took = begin.elapsed();
        if self.memory.is_same() {
            Ok(found)
        } else {
            Err(io::Error::from_raw_os_error(libc::ESRCH))
        }
    }

    fn pass(&self, units: &[Range<u64>]) -> io::Result<Pass> {
        let look = Look {
            memory: self.memory,
            index: self.index,
            known: self.known,
            units,
            allocator: self.allocator,
            grain: self.grain,
            threads: self.threads,
            deadline: self.deadline,
        };
        look.pass()
    }

    /// What is to be read, in random order; `within`: only what lies in these.
    fn units(
        &self,
        stack_pointers: &[u64],
        within: Option<&[Range<u64>]>,
    ) -> io::Result<Vec<Range<u64>>> {
        let mappings = self.memory.mappings()?;
        let mut dead: Vec<Range<u64>> = stack_pointers
            .iter()
            .filter_map(|pointer| stacks::dead_part(self.memory, &mappings, *pointer))
            .collect();
        dead.sort_unstable_by_key(|part| (part.start, part.end));
        // Of two pointers into one stack, the lower one counts.
        dead.dedup_by_key(|part| part.start);
        let mut runs = Vec::new();
        for mapping in &mappings {
            let mut populated = Vec::new();
            self.memory.populated(mapping, &mut populated)?;
            match self.only.filter(|_| is_large(mapping)) {
                Some(hot) => populated.iter().for_each(|run| hot.part_of(run, &mut runs)),
                None => runs.append(&mut populated),
            }
        }
        let runs = without(&runs, &dead);
        let runs = match within {
            Some(within) => intersection(&runs, within),
            None => runs,
        };
        let mut units = units(&runs);
        fastrand::shuffle(&mut units);
        Ok(units)
    }

    /// Adds what registers hold.
    pub fn add_registers(&self, words: &[u64], pointers: &mut Pointers) {
        for word in words {
            if let Some(hit) = self.index.find(word & ADDRESS_MASK) {
                pointers.root(hit.block, hit.to_start && *word <= ADDRESS_MASK, false);
            }
        }
    }
}

/// Whether only a part of a mapping is looked at again. Variables and the first
/// thread's stack are small and change often.
fn is_large(mapping: &Mapping) -> bool {
    let small = mapping.addresses.end - mapping.addresses.start <= UNIT;
    !small && (mapping.shared || matches!(mapping.kind, Kind::Heap | Kind::Anonymous))
}

impl Hot<'_> {
    fn part_of(&self, run: &Range<u64>, runs: &mut Vec<Range<u64>>) {
        let mut begin = run.start;
        while begin < run.end {
            let grain = begin / self.grain * self.grain;
            let end = run.end.min(grain + self.grain);
            if self.grains.contains(&grain) || !self.known.contains_key(&grain) {
                match runs.last_mut() {
                    Some(last) if last.end == begin => last.end = end,
                    _ => runs.push(begin..end),
                }
            }
            begin = end;
        }
    }
}

/// `runs` without `holes`, both by address.
fn without(runs: &[Range<u64>], holes: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut left = Vec::with_capacity(runs.len());
    for run in runs {
        let mut begin = run.start;
        let first = holes.partition_point(|hole| hole.end <= run.start);
        for hole in holes[first..].iter().take_while(|hole| hole.start < run.end) {
            if begin < hole.start {
                left.push(begin..hole.start);
            }
            begin = begin.max(hole.end);
        }
        if begin < run.end {
            left.push(begin..run.end);
        }
    }
    left
}

fn intersection(runs: &[Range<u64>], within: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut common = Vec::new();
    for run in runs {
        for part in within {
            let range = run.start.max(part.start)..run.end.min(part.end);
            if range.start < range.end {
                common.push(range);
            }
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that holes are cut out, at ends, in the middle and over several runs.
    #[test]
    fn holes_are_cut_out() {
        let runs = [0..100, 200..300, 300..400];
        assert_eq!(without(&runs, &[]), runs);
        assert_eq!(without(&runs, &[0..10, 50..60, 90..250]), [10..50, 60..90, 250..300, 300..400]);
        let all = 0..400;
        assert_eq!(without(&runs, std::slice::from_ref(&all)), []);
        assert_eq!(without(&runs, &[40..60, 40..50, 390..500]).len(), 4);
        assert_eq!(intersection(&runs, &[90..210, 399..500]), [90..100, 200..210, 399..400]);
    }

    /// Check that what has changed and what is new is looked at again.
    #[test]
    fn hot_and_new() {
        let known: HashMap<u64, u64> = [(0, 1), (16, 1), (32, 1), (48, 1)].into();
        let grains: HashSet<u64> = [16, 32].into();
        let hot = Hot { grains: &grains, known: &known, grain: 16 };
        let mut runs = Vec::new();
        hot.part_of(&(8..40), &mut runs);
        hot.part_of(&(40..96), &mut runs);
        assert_eq!(runs, [16..48, 64..96]);
    }
}
