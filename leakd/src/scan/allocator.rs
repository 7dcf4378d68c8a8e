//! What the allocator itself has in memory: its heaps, and pointers of its own to
//! free blocks.
//!
//! glibc keeps the free blocks of a size in a ring. Its pointers lead to the header
//! of a free block, 16 bytes in front of it, and the first 8 of these belong to the
//! block before (malloc/malloc.c, "chunk"). So where that block is asked for so that
//! it reaches there, which half of all sizes do, a pointer of the allocator's leads to
//! its last word, and would make a block that is lost look possibly lost.

use std::ops::Range;

use super::index::{Block, BlockIndex};
use super::memory::{Kind, Mapping, Memory};

/// Blocks from this size on may have a mapping of their own (glibc's
/// M_MMAP_THRESHOLD is twice that).
const LARGE: u64 = 64 << 10;
/// Bytes of a header; half of it belongs to the block before.
const HEADER: u64 = 16;
/// Flags in the word of a header that has the size.
const FLAGS: u64 = 7;
/// log2 of the size that heaps of arenas other than the main one are aligned to.
const ARENA_BITS: u32 = 26;

/// Where the allocator has what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocator {
    /// Memory that may be the allocator's where it is no block of the ledger.
    pub heaps: Vec<Range<u64>>,
    /// The C library's variables, by address.
    library: Vec<Range<u64>>,
    /// Where mappings end, upward.
    ends: Vec<u64>,
}

impl Allocator {
    /// Of a process with these mappings and blocks.
    pub fn new(mappings: &[Mapping], index: &BlockIndex) -> Self {
        let of = |kind| mappings.iter().filter(move |mapping| mapping.kind == kind);
        let owned = of(Kind::Heap).chain(of(Kind::Anonymous));
        let mut heaps: Vec<_> = owned.filter_map(|mapping| heap(mapping, index)).collect();
        heaps.sort_unstable_by_key(|heap| heap.start);
        Self {
            heaps,
            library: of(Kind::CLibrary).map(|mapping| mapping.addresses.clone()).collect(),
            ends: mappings.iter().map(|mapping| mapping.addresses.end).collect(),
        }
    }

    /// Whether an address is in a heap.
    pub fn is_in_heap(&self, address: u64) -> bool {
        holds(&self.heaps, address)
    }

    /// Whether the word at `here`, which leads into `block`, is a pointer of the
    /// allocator's to the free block behind it.
    pub fn is_its_own(&self, memory: &Memory, here: u64, value: u64, block: &Block) -> bool {
        let end = block.address.saturating_add(block.size);
        if !value.is_multiple_of(HEADER) || value.saturating_add(HEADER / 2) < end {
            return false;
        }
        // The header of `block` itself says where the next one is.
        let mut word = [0u64; 1];
        let size_at = block.address.wrapping_sub(8);
        if memory.read_as_debugger(size_at, &mut word) < 1
            || size_at.wrapping_sub(8).wrapping_add(word[0] & !FLAGS) != value
        {
            return false;
        }
        let mut header = [0u64; 4]; // the block's last word, size, next, previous
        if memory.read_as_debugger(value, &mut header) < 4 {
            return false;
        }
        let [_, size, next, previous] = header;
        // A ring: who leads to it is whom it leads back to.
        let in_ring =
            previous == here.wrapping_sub(HEADER) || next == here.wrapping_sub(HEADER + 8);
        // What is left of the heap: its end is that of the mapping. Only the arena
        // knows of it.
        let at_end = self.ends.binary_search(&value.wrapping_add(size & !FLAGS)).is_ok();
        let in_arena = holds(&self.library, here) || here >> ARENA_BITS == value >> ARENA_BITS;
        in_ring || (at_end && in_arena)
    }
}

fn holds(ranges: &[Range<u64>], address: u64) -> bool {
    let behind = ranges.partition_point(|range| range.end <= address);
    ranges.get(behind).is_some_and(|range| range.contains(&address))
}

/// The heap in a mapping: all that brk(2) made; else from the first to the last small
/// block.
fn heap(mapping: &Mapping, index: &BlockIndex) -> Option<Range<u64>> {
    let Range { start, end } = mapping.addresses;
    if mapping.kind == Kind::Heap {
        return Some(start..end);
    }
    let is_small = |block: &&Block| block.size < LARGE || block.address % 4096 != HEADER;
    let blocks = &index.blocks()[index.first_behind(start)..];
    let blocks = &blocks[..blocks.partition_point(|block| block.address < end)];
    let first = blocks.iter().find(is_small)?;
    let last = blocks.iter().rev().find(is_small)?;
    Some(first.address..last.address.saturating_add(last.size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(address: u64, size: u64) -> Block {
        Block { address, size, site: 0, birth_ns: 0, weight: 1 }
    }

    /// Check that a heap reaches from small block to small block, and that large
    /// ones with a mapping of their own make none.
    #[test]
    fn heaps_are_where_blocks_are() {
        let index = BlockIndex::new(vec![
            block(0x11_0010, 16),
            block(0x30_0100, 32),
            block(0x30_5000, 16),
            block(0x40_0010, 1 << 20),
        ]);
        let mapping = |addresses, kind| Mapping { addresses, kind, shared: false };
        let mappings = [
            mapping(0x10_0000..0x20_0000, Kind::Heap),
            mapping(0x30_0000..0x38_0000, Kind::Anonymous),
            mapping(0x40_0000..0x60_0000, Kind::Anonymous),
            mapping(0x70_0000..0x80_0000, Kind::Other),
        ];
        let allocator = Allocator::new(&mappings, &index);
        assert_eq!(allocator.heaps, [0x10_0000..0x20_0000, 0x30_0100..0x30_5010]);
        assert!(allocator.is_in_heap(0x30_5000) && !allocator.is_in_heap(0x30_5010));
    }

    /// Check with this process' own malloc that its pointers to a free block are
    /// known for what they are, and that one of ours to the same place is not. In a
    /// process of its own: the threads of other tests would take from the free block.
    #[test]
    #[cfg(all(target_env = "gnu", target_arch = "x86_64"))]
    fn pointers_of_glibc_are_known() {
        const NAME: &str = "scan::allocator::tests::pointers_of_glibc_alone";
        let program = std::env::current_exe().expect("a path");
        let mut test = std::process::Command::new(program);
        let output = test.args(["--exact", NAME, "--ignored"]).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }

    #[test]
    #[ignore = "run by pointers_of_glibc_are_known"]
    #[cfg(all(target_env = "gnu", target_arch = "x86_64"))]
    fn pointers_of_glibc_alone() {
        // Too large for the caches of threads: freed, it goes into a ring. The last
        // keeps it from being joined with what is behind.
        const SIZE: usize = 3000;
        // SAFETY: malloc(3) and free(3) as they are meant, and reads of words that
        // belong to blocks that are allocated.
        unsafe {
            // Three in a row: holes that others have left are filled first.
            let mut fill = Vec::new();
            let [first, freed, last] = loop {
                let three = [SIZE + 16, SIZE, SIZE].map(|size| libc::malloc(size) as u64);
                if three[1] - HEADER == three[0] + SIZE as u64 + 8 && three[2] > three[1] {
                    break three;
                }
                fill.extend(three);
                assert!(fill.len() < 10_000, "no three in a row");
            };
            let header = freed - HEADER;
            libc::free(freed as *mut _);
            let memory = Memory::open(std::process::id()).unwrap();
            let index = BlockIndex::new(vec![block(first, SIZE as u64 + 16)]);
            let allocator = Allocator::new(&memory.mappings().unwrap(), &index);
            let one = index.blocks()[0];
            // The ring's own words tell who leads here.
            let mut ring = [0u64; 2];
            assert_eq!(memory.read_as_debugger(freed, &mut ring), 2);
            let from_next = ring[0] + HEADER + 8; // its `previous`
            assert!(allocator.is_its_own(&memory, from_next, header, &one));
            assert!(allocator.is_its_own(&memory, ring[1] + HEADER, header, &one));
            let ours = Box::new(header);
            let here = std::ptr::from_ref(&*ours) as u64;
            assert!(!allocator.is_its_own(&memory, here, header, &one));
            assert!(!allocator.is_its_own(&memory, from_next, header - 16, &one));
            for block in fill.into_iter().chain([first, last]) {
                libc::free(block as *mut _);
            }
        }
    }
}
