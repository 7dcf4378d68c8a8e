//! Where a process' resident memory goes: what call sites hold, what is older than
//! the trace, what its allocator keeps though it is free, and what is none of the
//! heap's. A process whose memory grows does not always leak: where the allocator
//! keeps it, no call site is to blame.
//!
//! | file | concern |
//! |---|---|
//! | [`chunks`] | what of one of glibc's heaps is in use |
//! | [`pages`] | which pages are in memory |
//!
//! Everything is read from outside, while the process runs: /proc/PID/status, the
//! page map, and the headers of glibc's chunks. Pages in swap are not touched.

pub mod chunks;
pub mod pages;

use std::io;
use std::ops::Range;

use chunks::{HEADER, Part};
use pages::{Resident, Words};
use procfs::process::Process;

use crate::scan::index::Block;
use crate::scan::memory::{Kind, Mapping, Memory, PAGE};

/// glibc's arenas, other than the main one, have heaps that begin at multiples of
/// this (HEAP_MAX_SIZE of malloc/arena.c; with large pages, a multiple of it).
const ARENA: u64 = 64 << 20;
/// Threads whose stacks are looked for.
const MOST_THREADS: usize = 10_000;

/// The parts of a process' resident memory, in bytes. Together they are `resident`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Composition {
    /// Resident memory (RSS).
    pub resident: u64,
    /// What is in swap besides.
    pub swapped: u64,
    /// Blocks of the ledger: allocated in the trace, and not freed.
    pub outstanding: u64,
    /// Chunks that are in use and not in the ledger: older than the trace, or in the
    /// caches of freed chunks that threads have.
    pub unseen: u64,
    /// Free chunks, headers and rounding: what the allocator keeps.
    pub allocator: u64,
    /// Memory of an allocator whose structure is not known, or is in disorder: in
    /// use and unseen, or free. Mappings of the program's own cannot be told from it.
    pub unresolved: u64,
    /// Stacks of threads.
    pub stacks: u64,
    /// Files that are mapped: programs, libraries, data.
    pub files: u64,
    /// Memory that is shared with others.
    pub shared: u64,
    /// The rest: variables of programs, and mappings that are not malloc's.
    pub other: u64,
}

impl Composition {
    /// Of a process that runs, and the blocks of its ledger. `foreign`: it may have
    /// another allocator than glibc's, which takes memory where it likes.
    ///
    /// # Errors
    /// If the process is gone, or has replaced its program meanwhile.
    pub fn of(pid: u32, mut blocks: Vec<Block>, foreign: bool) -> io::Result<Self> {
        blocks.sort_unstable_by_key(|block| block.address);
        let memory = Memory::open(pid)?;
        let mappings = memory.mappings()?;
        let resident = Resident::of(&memory, &mappings)?;
        let status = Process::new(pid.cast_signed())
            .and_then(|process| process.status())
            .map_err(io::Error::other)?;
        let stack_pointers = stack_pointers(pid);
        let mut look = Look {
            words: Words::new(&memory, &resident),
            resident: &resident,
            foreign,
            found: Self::default(),
        };
        for mapping in mappings.iter().filter(|mapping| !mapping.shared) {
            let blocks = within(&blocks, &mapping.addresses);
            let is_stack = mapping.kind == Kind::Stack
                || (blocks.is_empty()
                    && mapping.kind == Kind::Anonymous
                    && stack_pointers.iter().any(|one| mapping.addresses.contains(one)));
            if is_stack {
                look.found.stacks += resident.bytes(&mapping.addresses);
            } else {
                look.look_at(mapping, blocks);
            }
        }
        let mut found = look.found;
        if !memory.is_same() {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        let bytes = |kilobytes: Option<u64>| kilobytes.unwrap_or(0).saturating_mul(1024);
        found.files = bytes(status.rssfile);
        found.shared = bytes(status.rssshmem);
        found.swapped = bytes(status.vmswap);
        let named = found.heap() + found.stacks;
        found.other = bytes(status.rssanon).saturating_sub(named);
        found.resident = named + found.other + found.files + found.shared;
        Ok(found)
    }

    /// All that is of the heap.
    pub fn heap(&self) -> u64 {
        self.outstanding + self.unseen + self.allocator + self.unresolved
    }
}

/// The blocks that begin in a range.
fn within<'a>(blocks: &'a [Block], range: &Range<u64>) -> &'a [Block] {
    let first = blocks.partition_point(|block| block.address < range.start);
    let end = blocks.partition_point(|block| block.address < range.end);
    &blocks[first..end.max(first)]
}

struct Look<'a> {
    words: Words<'a>,
    resident: &'a Resident,
    foreign: bool,
    found: Composition,
}

impl Look<'_> {
    /// Adds a mapping that is no stack.
    fn look_at(&mut self, mapping: &Mapping, blocks: &[Block]) {
        let addresses = mapping.addresses.clone();
        match mapping.kind {
            Kind::Heap => {
                if !self.heap(&addresses, blocks) && (self.foreign || !blocks.is_empty()) {
                    self.unknown_allocator(&addresses, blocks);
                }
            }
            Kind::Anonymous => self.anonymous(&addresses, blocks),
            // Variables: what remains in the end.
            Kind::Stack | Kind::CLibrary | Kind::Other => {}
        }
    }

    /// A mapping without a file: heaps of arenas, and what lies between them.
    fn anonymous(&mut self, addresses: &Range<u64>, blocks: &[Block]) {
        // Mappings side by side are one to the kernel.
        let mut done = addresses.start;
        let mut begin = addresses.start.next_multiple_of(ARENA);
        while begin < addresses.end {
            let next = begin.saturating_add(ARENA).min(addresses.end);
            if self.heap(&(begin..next), within(blocks, &(begin..next))) {
                self.mapped(&(done..begin), within(blocks, &(done..begin)));
                done = next;
            }
            begin = next;
        }
        self.mapped(&(done..addresses.end), within(blocks, &(done..addresses.end)));
    }

    /// A heap of glibc's; false if it is none.
    fn heap(&mut self, addresses: &Range<u64>, blocks: &[Block]) -> bool {
        let Self { words, resident, found, .. } = self;
        let mut blocks_left = blocks;
        let mut add = |part: Range<u64>, kind| {
            let bytes = resident.bytes(&part);
            let first = blocks_left.partition_point(|block| block.address < part.start);
            let end = blocks_left.partition_point(|block| block.address < part.end);
            let (inside, left) = (&blocks_left[first..end], &blocks_left[end..]);
            blocks_left = left;
            let held: u64 = inside.iter().map(|block| held(resident, block, part.end)).sum();
            found.outstanding += held;
            let rest = bytes.saturating_sub(held);
            match kind {
                Part::Used if inside.is_empty() => found.unseen += rest,
                Part::Used | Part::Free => found.allocator += rest,
                Part::Unknown => found.unresolved += rest,
            }
        };
        chunks::walk(addresses, blocks, &mut |address| words.read(address), &mut add)
    }

    /// Blocks with a mapping of their own, those of another allocator, or none.
    fn mapped(&mut self, addresses: &Range<u64>, blocks: &[Block]) {
        if self.foreign || blocks.iter().any(|block| block.address % PAGE != HEADER) {
            return self.unknown_allocator(addresses, blocks);
        }
        let runs: Vec<Range<u64>> = self.resident.within(addresses).collect();
        let mut done = addresses.start;
        for run in runs {
            let mut page = run.start.max(done);
            while page < run.end {
                let words = &mut self.words;
                let mut read = |address: u64| words.read(address);
                let chunk = chunks::mapped_chunk(page, addresses.end, &mut read);
                let block = within(blocks, &(page..page + PAGE)).first();
                let Some(chunk) = chunk.or_else(|| Some(page..end_of(block?, addresses.end)))
                else {
                    page += PAGE;
                    continue;
                };
                let bytes = self.resident.bytes(&chunk);
                match block {
                    Some(block) => {
                        let held = held(self.resident, block, chunk.end);
                        self.found.outstanding += held;
                        self.found.allocator += bytes.saturating_sub(held);
                    }
                    None => self.found.unseen += bytes,
                }
                page = chunk.end;
                done = chunk.end;
            }
        }
    }

    fn unknown_allocator(&mut self, addresses: &Range<u64>, blocks: &[Block]) {
        let mut end = addresses.start;
        let mut held_all = 0;
        for block in blocks.iter().filter(|block| block.address >= addresses.start) {
            // Of blocks that overlap, which there are only while one of them is
            // going, each byte counts once.
            if block.address >= end {
                held_all += held(self.resident, block, addresses.end);
                end = block.address.saturating_add(block.size);
            }
        }
        self.found.outstanding += held_all;
        self.found.unresolved += self.resident.bytes(addresses).saturating_sub(held_all);
    }
}

/// Where the last page of a block ends.
fn end_of(block: &Block, most: u64) -> u64 {
    block.address.saturating_add(block.size).saturating_add(PAGE - 1).min(most) / PAGE * PAGE
}

/// Bytes of a block that are in memory.
fn held(resident: &Resident, block: &Block, end: u64) -> u64 {
    resident.bytes(&(block.address..block.address.saturating_add(block.size).min(end)))
}

/// Where the stacks of threads are that sleep, by /proc/PID/task/TID/syscall: its
/// last word but one is the stack pointer. Those that run have none there, and their
/// stacks count as other memory.
fn stack_pointers(pid: u32) -> Vec<u64> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let tasks = tasks.filter_map(Result::ok).take(MOST_THREADS);
    tasks
        .filter_map(|task| {
            let text = std::fs::read_to_string(task.path().join("syscall")).ok()?;
            let word = text.split_ascii_whitespace().rev().nth(1)?;
            u64::from_str_radix(word.strip_prefix("0x")?, 16).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests;
