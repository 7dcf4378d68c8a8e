//! Which block an address lies in.
//!
//! A mark asks this of every word of a process, and most words are no addresses
//! at all: those must cost next to nothing. So the index has the shape of the
//! processor's page tables. One load says that in this gigabyte there is no
//! block; two more lead to the page, and to the first of its blocks.

use std::ops::Range;

/// A block of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its first byte.
    pub address: u64,
    /// Its bytes, as asked for.
    pub size: u64,
    /// The call site: the key in the target's site table.
    pub site: u64,
    /// When it was allocated: CLOCK_MONOTONIC, ns.
    pub birth_ns: u64,
    /// How many blocks it stands for: 1 unless sampled.
    pub weight: u32,
}

impl Block {
    /// The addresses that lead to it. A block without bytes has one address
    /// all the same: that which `free` is called with.
    fn addresses(&self) -> Range<u64> {
        self.address..self.address.saturating_add(self.size.max(1))
    }
}

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The block's number: its place in [`BlockIndex::blocks`].
    pub block: u32,
    /// Whether the address is that of its first byte.
    pub to_start: bool,
}

/// Bits of a page, of a table of pages, of a table of tables.
const PAGE: u32 = 12;
const TABLE: u32 = 9;
const REGION: u32 = PAGE + TABLE;
const GIGABYTE: u32 = REGION + TABLE;
/// User space of a process with four levels of page tables.
const ADDRESS_BITS: u32 = 47;
const ENTRIES: usize = 1 << TABLE;

/// What an entry of a table says. Numbers of blocks and of tables are below
/// 2^30: see [`BlockIndex::MOST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry(u32);

impl Entry {
    const EMPTY: Self = Self(u32::MAX);
    /// One block covers all that the entry stands for.
    const COVERED: u32 = 1 << 30;

    const fn number(self) -> usize {
        (self.0 & (Self::COVERED - 1)) as usize
    }

    const fn is_covered(self) -> bool {
        self.0 & Self::COVERED != 0
    }
}

/// The blocks of a process, by address.
#[derive(Debug)]
pub struct BlockIndex {
    blocks: Vec<Block>,
    /// First address of each, apart from the rest: what a look-up reads.
    starts: Vec<u64>,
    range: Range<u64>,
    /// By gigabyte: the number of its table in `regions`.
    gigabytes: Vec<Entry>,
    /// Tables of regions of 2 MiB: the number of its table in `pages`.
    regions: Vec<[Entry; ENTRIES]>,
    /// Tables of pages: the number of the first block that ends in it or later.
    pages: Vec<[Entry; ENTRIES]>,
}

impl BlockIndex {
    /// Most blocks that an index can hold.
    pub const MOST: usize = Entry::COVERED as usize - 1;

    /// Makes the index. Of blocks that overlap, those that begin later are left
    /// out: the ledger is read while the process runs, and one of them is gone.
    /// So are those beyond [`BlockIndex::MOST`] and those outside of user space.
    pub fn new(mut blocks: Vec<Block>) -> Self {
        blocks.sort_unstable_by_key(|block| (block.address, block.size));
        let mut end = 0;
        blocks.retain(|block| {
            let addresses = block.addresses();
            let fits = addresses.start >= end && addresses.end <= 1 << ADDRESS_BITS;
            if fits {
                end = addresses.end;
            }
            fits
        });
        blocks.truncate(Self::MOST);
        let starts: Vec<u64> = blocks.iter().map(|block| block.address).collect();
        let range = match (blocks.first(), blocks.last()) {
            (Some(first), Some(last)) => first.address..last.addresses().end,
            _ => 0..0,
        };
        let mut index = Self {
            blocks,
            starts,
            range,
            gigabytes: vec![Entry::EMPTY; 1 << (ADDRESS_BITS - GIGABYTE)],
            regions: Vec::new(),
            pages: Vec::new(),
        };
        for number in 0..index.blocks.len() {
            index.enter(number as u32);
        }
        index
    }

    /// From the first block's begin to the last one's end.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// The blocks, by address.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    fn enter(&mut self, number: u32) {
        let addresses = self.blocks[number as usize].addresses();
        let mut address = addresses.start;
        while address < addresses.end {
            let step = |bits: u32| -> Option<u64> {
                let next = address.checked_add(1 << bits)?;
                (address.trailing_zeros() >= bits && next <= addresses.end).then_some(next)
            };
            let covered = Entry(number | Entry::COVERED);
            let gigabyte = (address >> GIGABYTE) as usize;
            if let Some(next) = step(GIGABYTE) {
                self.gigabytes[gigabyte] = covered;
                address = next;
                continue;
            }
            let table = descend(&mut self.gigabytes[gigabyte], &mut self.regions);
            let region = (address >> REGION) as usize % ENTRIES;
            if let Some(next) = step(REGION) {
                self.regions[table][region] = covered;
                address = next;
                continue;
            }
            let table = descend(&mut self.regions[table][region], &mut self.pages);
            let page = &mut self.pages[table][(address >> PAGE) as usize % ENTRIES];
            if *page == Entry::EMPTY {
                *page = Entry(number);
            }
            address = (address | ((1 << PAGE) - 1)) + 1;
        }
    }

    /// The block that an address lies in.
    #[inline]
    pub fn find(&self, address: u64) -> Option<Hit> {
        if address.wrapping_sub(self.range.start) >= self.range.end - self.range.start {
            return None;
        }
        self.find_within(address)
    }

    fn find_within(&self, address: u64) -> Option<Hit> {
        let first = self.first_in_page(address)?;
        // A page holds 256 blocks at most, since no allocator hands out less
        // than 16 bytes; where one does, they are found all the same.
        let mut most = (self.starts.len() - first).min(1 << (PAGE - 4));
        if most < self.starts.len() - first && self.starts[first + most] <= address {
            most = self.starts.len() - first;
        }
        let behind = self.starts[first..first + most].partition_point(|start| *start <= address);
        let number = (first + behind).checked_sub(1)?;
        let addresses = self.blocks[number].addresses();
        addresses
            .contains(&address)
            .then_some(Hit { block: number as u32, to_start: addresses.start == address })
    }

    /// The first block that may hold an address of this page.
    fn first_in_page(&self, address: u64) -> Option<usize> {
        let mut entry = self.gigabytes[(address >> GIGABYTE) as usize];
        for (tables, bits) in [(&self.regions, REGION), (&self.pages, PAGE)] {
            if entry == Entry::EMPTY {
                return None;
            }
            if entry.is_covered() {
                return Some(entry.number());
            }
            entry = tables[entry.number()][(address >> bits) as usize % ENTRIES];
        }
        (entry != Entry::EMPTY).then(|| entry.number())
    }

    /// The first block that ends behind an address: where a walk over memory
    /// meets the ledger.
    pub fn first_behind(&self, address: u64) -> usize {
        let after = self.starts.partition_point(|start| *start <= address);
        match after.checked_sub(1) {
            Some(before) if self.blocks[before].addresses().end > address => before,
            _ => after,
        }
    }
}

/// The number of the table that an entry leads to; makes it where there is none.
fn descend(entry: &mut Entry, tables: &mut Vec<[Entry; ENTRIES]>) -> usize {
    if *entry == Entry::EMPTY {
        *entry = Entry(tables.len() as u32);
        tables.push([Entry::EMPTY; ENTRIES]);
    }
    entry.number()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block(address: u64, size: u64) -> Block {
        Block { address, size, site: 0, birth_ns: 0, weight: 1 }
    }

    /// Check that every address leads to its block, and those beside to none:
    /// of blocks within a page, over pages, over gigabytes, of none bytes, at
    /// both ends of user space.
    #[test]
    fn addresses_lead_to_their_blocks() {
        let blocks = [
            (0x1000, 24),
            (0x1018, 1),
            (0x1020, 0),
            (0x1fff, 2),
            (0x5000_0010, 3 << 20),
            (0x4000_0000 * 5, 3 << 30),
            (0x4000_0000 * 9 + 16, 2 << 30),
            ((1 << 47) - 16, 16),
        ];
        let index = BlockIndex::new(blocks.map(|(address, size)| block(address, size)).into());
        assert_eq!(index.blocks().len(), blocks.len());
        for (number, (address, size)) in blocks.into_iter().enumerate() {
            let last = address + u64::max(size, 1) - 1;
            let middle = address + size / 2;
            for inside in [address, middle, last] {
                let hit = Hit { block: number as u32, to_start: inside == address };
                assert_eq!(index.find(inside), Some(hit), "{inside:#x}");
            }
            let beside = [address - 1, last + 1].map(|outside| index.find(outside));
            for hit in beside.into_iter().flatten() {
                assert_ne!(hit.block, number as u32);
            }
        }
        for outside in [0, 8, 0x2001, 0x5000_000f, 1 << 47, u64::MAX] {
            assert_eq!(index.find(outside), None, "{outside:#x}");
        }
    }

    /// Check that of blocks that overlap the one that begins first is kept, and
    /// that what no process can have is left out.
    #[test]
    fn contradictions_are_left_out() {
        let index = BlockIndex::new(vec![
            block(0x1000, 64),
            block(0x1010, 16),
            block(0x1040, 16),
            block(u64::MAX - 8, 16),
            block(1 << 47, 16),
        ]);
        let kept: Vec<u64> = index.blocks().iter().map(|block| block.address).collect();
        assert_eq!(kept, [0x1000, 0x1040]);
        assert_eq!(BlockIndex::new(Vec::new()).find(0), None);
    }

    proptest! {
        /// Check look-ups against a search through all blocks.
        #[test]
        fn same_as_a_search(
            blocks in prop::collection::vec((0u64..1 << 34, 0u64..1 << 22, 0u32..3), 0..200),
            probes in prop::collection::vec((0usize..200, -3i64..3, any::<bool>()), 0..200),
        ) {
            let blocks = blocks
                .into_iter()
                .map(|(address, size, kind)| match kind {
                    0 => block(address & 0xffff, size % 64),
                    1 => block(address & !15, size % 5000),
                    _ => block(address, size),
                })
                .collect();
            let index = BlockIndex::new(blocks);
            for (number, offset, at_end) in probes {
                let Some(block) = index.blocks().get(number) else { continue };
                let base = if at_end { block.addresses().end } else { block.address };
                let address = base.wrapping_add_signed(offset);
                let expected = index
                    .blocks()
                    .iter()
                    .position(|block| block.addresses().contains(&address))
                    .map(|number| Hit {
                        block: number as u32,
                        to_start: index.blocks()[number].address == address,
                    });
                prop_assert_eq!(index.find(address), expected);
                let behind = index.blocks().iter().position(|block| block.addresses().end > address);
                prop_assert_eq!(index.first_behind(address), behind.unwrap_or(index.blocks().len()));
            }
        }
    }
}
