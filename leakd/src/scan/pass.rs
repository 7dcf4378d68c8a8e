//! One pass over the memory of a process: every word that is the address of a
//! block.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::allocator::Allocator;
use super::graph::{Pointers, Reach};
use super::index::BlockIndex;
use super::memory::{Memory, PAGE};

/// Bytes that are read at once: half of a core's second-level cache.
pub const UNIT: u64 = 256 << 10;

/// The bits of an address in user space. Those above may be a tag: a value that
/// leads to a block without them is a pointer to its inside, at best.
pub const ADDRESS_MASK: u64 = (1 << 47) - 1;

/// The golden ratio as a fraction of 2^64: makes neighbouring addresses differ.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// What to look at.
#[derive(Debug)]
pub struct Look<'a> {
    /// The memory.
    pub memory: &'a Memory,
    /// The blocks to look for.
    pub index: &'a BlockIndex,
    /// All blocks and their classes, if `index` has not all of them.
    pub known: Option<(&'a BlockIndex, &'a [Reach])>,
    /// Ranges of words, of at most [`UNIT`] bytes each, in the order in which
    /// they are read.
    pub units: &'a [Range<u64>],
    /// What the allocator has where.
    pub allocator: &'a Allocator,
    /// Bytes of which sums are taken, a multiple of a page; 0: none.
    pub grain: u64,
    /// Threads to do it with.
    pub threads: usize,
    /// When it must be over.
    pub deadline: Option<Instant>,
}

/// What a pass found.
#[derive(Debug, Default)]
pub struct Pass {
    /// The pointers.
    pub pointers: Pointers,
    /// Bytes that were looked at.
    pub bytes: u64,
    /// Ranges that could not be read.
    pub unread: Vec<Range<u64>>,
    /// By where a grain begins, the sum of its words.
    pub sums: HashMap<u64, u64>,
    /// It was not done in time.
    pub late: bool,
}

impl Pass {
    /// Takes over what another one found.
    pub fn append(&mut self, other: Self) {
        self.pointers.append(other.pointers);
        self.bytes += other.bytes;
        self.late |= other.late;
        self.unread.extend(other.unread);
        for (grain, sum) in other.sums {
            self.add_sum(grain, sum);
        }
    }

    fn add_sum(&mut self, grain: u64, sum: u64) {
        let total = self.sums.entry(grain).or_default();
        *total = total.wrapping_add(sum);
    }
}

impl Look<'_> {
    /// Looks at all of it.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn pass(&self) -> io::Result<Pass> {
        let next = AtomicUsize::new(0);
        let look = || -> io::Result<Pass> {
            let mut reader =
                Reader { look: self, words: vec![0; (UNIT / 8) as usize], pass: Pass::default() };
            while let Some(unit) = self.units.get(next.fetch_add(1, Ordering::Relaxed)) {
                if self.deadline.is_some_and(|deadline| Instant::now() > deadline) {
                    reader.pass.late = true;
                    break;
                }
                reader.unit(unit)?;
            }
            Ok(reader.pass)
        };
        let threads = self.threads.min(self.units.len()).max(1);
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(look)).collect();
            let mut whole = look()?;
            for other in others {
                whole
                    .append(other.join().map_err(|_| io::Error::other("a scanning thread died"))??);
            }
            Ok(whole)
        })
    }
}

/// Splits runs into units.
pub fn units(runs: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut units = Vec::new();
    for run in runs {
        let mut begin = run.start;
        while begin < run.end {
            let end = run.end.min((begin / UNIT + 1) * UNIT);
            units.push(begin..end);
            begin = end;
        }
    }
    units
}

struct Reader<'a> {
    look: &'a Look<'a>,
    words: Vec<u64>,
    pass: Pass,
}

impl Reader<'_> {
    fn unit(&mut self, unit: &Range<u64>) -> io::Result<()> {
        let mut words = std::mem::take(&mut self.words);
        let wanted = ((unit.end - unit.start) / 8) as usize;
        // From anywhere to the end and then from the begin: what moves upward
        // in step with us is not missed for ever.
        let middle = unit.start + fastrand::u64(0..wanted.max(1) as u64) * 8;
        let parts = [middle..unit.end, unit.start..middle];
        if self.look.memory.read(&parts, &mut words[..wanted])? == wanted {
            let (end, begin) = words[..wanted].split_at(((unit.end - middle) / 8) as usize);
            self.words(middle, end);
            self.words(unit.start, begin);
        } else {
            self.piecemeal(unit, &mut words);
        }
        self.words = words;
        Ok(())
    }

    /// Page by page: something of it is gone, or the process may not read it.
    fn piecemeal(&mut self, unit: &Range<u64>, words: &mut [u64]) {
        let mut begin = unit.start;
        while begin < unit.end {
            let end = unit.end.min((begin / PAGE + 1) * PAGE);
            let wanted = ((end - begin) / 8) as usize;
            let read = self.look.memory.read_as_debugger(begin, &mut words[..wanted]);
            self.words(begin, &words[..read]);
            if read < wanted {
                self.pass.unread.push(begin + read as u64 * 8..end);
            }
            begin = end;
        }
    }

    /// Looks at words that stand at `address`.
    fn words(&mut self, address: u64, words: &[u64]) {
        self.pass.bytes += words.len() as u64 * 8;
        if self.look.grain > 0 {
            self.sum(address, words);
        }
        let index = self.look.index;
        let range = index.range();
        let length = range.end - range.start;
        let may_hit = |word: u64| (word & ADDRESS_MASK).wrapping_sub(range.start) < length;
        let mut next = index.first_behind(address);
        for (number, eight) in words.chunks(8).enumerate() {
            // Most words are no addresses at all; the compiler makes this wide.
            if !eight.iter().fold(false, |any, word| any | may_hit(*word)) {
                continue;
            }
            for (offset, &word) in eight.iter().enumerate() {
                if may_hit(word) {
                    self.word(address + (number * 8 + offset) as u64 * 8, word, &mut next);
                }
            }
        }
    }

    fn word(&mut self, here: u64, word: u64, next: &mut usize) {
        let Some(hit) = self.look.index.find(word & ADDRESS_MASK) else { return };
        let to_start = hit.to_start && word <= ADDRESS_MASK;
        let blocks = self.look.index.blocks();
        while blocks.get(*next).is_some_and(|block| block.address + block.size <= here) {
            *next += 1;
        }
        match blocks.get(*next) {
            Some(block) if block.address <= here => {
                self.pass.pointers.block(*next as u32, hit.block, to_start);
            }
            _ if !to_start && self.is_the_allocators(here, word, hit.block) => {}
            _ => {
                let (to_start, unknown) = self.as_root(here, to_start);
                self.pass.pointers.root(hit.block, to_start, unknown);
            }
        }
    }

    /// What a pointer counts for that stands outside of the blocks looked for:
    /// whether as one to a start, and whether it is in unknown memory.
    fn as_root(&self, here: u64, to_start: bool) -> (bool, bool) {
        let known = self
            .look
            .known
            .and_then(|(index, classes)| classes.get(index.find(here)?.block as usize));
        match known {
            Some(Reach::Unknown) => (to_start, true),
            Some(Reach::Possibly) => (false, false),
            Some(_) => (to_start, false),
            None => (to_start, self.look.allocator.is_in_heap(here)),
        }
    }

    /// Whether a pointer is the allocator's own, to a free block behind `block`.
    fn is_the_allocators(&self, here: u64, word: u64, block: u32) -> bool {
        let Look { memory, allocator, index, .. } = self.look;
        allocator.is_its_own(memory, here, word, &index.blocks()[block as usize])
    }

    /// Sums that change where a word does, but for one in 2^64. They can be
    /// added up from parts, whatever their order.
    fn sum(&mut self, address: u64, words: &[u64]) {
        let grain = self.look.grain;
        let mut rest = words;
        let mut at = address;
        while !rest.is_empty() {
            let count = (((at / grain + 1) * grain - at) / 8).min(rest.len() as u64) as usize;
            let (part, behind) = rest.split_at(count);
            let mut sum = 0u64;
            let mut factor = at.wrapping_mul(MIX);
            for word in part {
                sum = sum.wrapping_add(word.wrapping_mul(factor | 1));
                factor = factor.wrapping_add(MIX.wrapping_mul(8));
            }
            self.pass.add_sum(at / grain * grain, sum);
            at += count as u64 * 8;
            rest = behind;
        }
    }
}
