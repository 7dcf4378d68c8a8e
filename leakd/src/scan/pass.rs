//! One pass over the memory of a process: every word that is the address of a
//! block.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::graph::Pointers;
use super::index::BlockIndex;
use super::memory::{Memory, PAGE, Region};

/// Bytes that a thread takes at once: what one page of tables maps.
const PIECE: u64 = 2 << 20;
/// Bytes that are read at once: half of a core's second-level cache.
const CHUNK: u64 = 256 << 10;

/// What a pass found.
#[derive(Debug, Default)]
pub struct Pass {
    /// The pointers.
    pub pointers: Pointers,
    /// Bytes that were looked at.
    pub bytes: u64,
    /// Bytes that are there and could not be read.
    pub unreadable: u64,
}

/// Looks at all words of `regions`, by `threads` threads.
///
/// # Errors
/// If the process is gone.
pub fn pass(
    memory: &Memory,
    regions: &[Region],
    index: &BlockIndex,
    threads: usize,
) -> io::Result<Pass> {
    let pieces: Vec<Region> = regions.iter().flat_map(pieces).collect();
    let next = AtomicUsize::new(0);
    let look = || -> io::Result<Pass> {
        let mut reader = Reader::new(memory, index);
        while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            reader.piece(piece)?;
        }
        Ok(reader.pass)
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads.max(1)).map(|_| scope.spawn(look)).collect();
        let mut whole = look()?;
        for other in others {
            let part = other.join().map_err(|_| io::Error::other("a scanning thread died"))??;
            whole.pointers.append(part.pointers);
            whole.bytes += part.bytes;
            whole.unreadable += part.unreadable;
        }
        Ok(whole)
    })
}

fn pieces(region: &Region) -> impl Iterator<Item = Region> {
    let Range { start, end } = region.addresses;
    let shared = region.shared;
    let first = start / PIECE;
    (first..end.div_ceil(PIECE)).map(move |number| Region {
        addresses: start.max(number * PIECE)..end.min((number + 1) * PIECE),
        shared,
    })
}

struct Reader<'a> {
    memory: &'a Memory,
    index: &'a BlockIndex,
    words: Vec<u64>,
    runs: Vec<Range<u64>>,
    pass: Pass,
}

impl<'a> Reader<'a> {
    fn new(memory: &'a Memory, index: &'a BlockIndex) -> Self {
        let words = vec![0; (CHUNK / 8) as usize];
        Self { memory, index, words, runs: Vec::new(), pass: Pass::default() }
    }

    fn piece(&mut self, piece: &Region) -> io::Result<()> {
        let mut runs = std::mem::take(&mut self.runs);
        self.memory.populated(piece.addresses.clone(), piece.shared, &mut runs)?;
        for run in &runs {
            self.run(run.clone());
        }
        self.runs = runs;
        Ok(())
    }

    fn run(&mut self, run: Range<u64>) {
        let mut address = run.start;
        while address < run.end {
            let wanted = CHUNK.min(run.end - address);
            let mut words = std::mem::take(&mut self.words);
            let read = self.memory.read(address, &mut words[..(wanted / 8) as usize]);
            self.look(address, &words[..read]);
            self.words = words;
            let read = read as u64 * 8;
            self.pass.bytes += read;
            // A page that is gone or cannot be read: go on behind it.
            let next = if read < wanted { (address + read) / PAGE * PAGE + PAGE } else { wanted + address };
            self.pass.unreadable += next - address - read;
            address = next;
        }
    }

    /// Looks at words that stand at `address`.
    fn look(&mut self, address: u64, words: &[u64]) {
        let (index, pointers) = (self.index, &mut self.pass.pointers);
        let blocks = index.blocks();
        let mut next = index.first_behind(address);
        for (number, &word) in words.iter().enumerate() {
            let Some(hit) = index.find(word) else { continue };
            let here = address + number as u64 * 8;
            while blocks.get(next).is_some_and(|block| block.address + block.size <= here) {
                next += 1;
            }
            match blocks.get(next) {
                Some(block) if block.address <= here => {
                    pointers.block(next as u32, hit.block, hit.to_start);
                }
                _ => pointers.root(hit.block, hit.to_start),
            }
        }
    }
}
