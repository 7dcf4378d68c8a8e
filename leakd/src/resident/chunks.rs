//! Which part of one of glibc's heaps is in use, by the headers of its chunks.
//!
//! glibc cuts a heap into chunks that lie one behind the other. Each has a header of
//! 16 bytes, whose second word is the chunk's size and three flags, the lowest of
//! which says whether the chunk *before* is in use (malloc/malloc.c, "struct
//! malloc_chunk"). So who knows the first chunk knows them all, up to the last one,
//! the top, which is free and ends where the heap does.
//!
//! The process runs meanwhile: a chunk may be joined with the one behind it, or cut,
//! between two looks, and what is then taken for a header is somebody's data. Such a
//! chain breaks soon, since few words are good sizes. It is taken up again at the
//! next block of the ledger, whose header is known to be in front of it; what lies
//! between is unknown. What a process writes there on purpose leads to wrong figures
//! about itself, and to no others: each step goes up, and none leaves the heap.

use std::ops::Range;

use crate::scan::index::Block;

/// Bytes of a header.
pub const HEADER: u64 = 16;
/// Chunks are multiples of this, and blocks aligned to it.
const ALIGNMENT: u64 = 16;
/// The smallest chunk that is handed out.
const SMALLEST: u64 = 32;
/// The chunk before is in use.
const PREVIOUS_IN_USE: u64 = 1;
/// The chunk has a mapping of its own.
const MAPPED: u64 = 2;
const FLAGS: u64 = 7;
/// Where the first chunk of a heap is looked for: behind the description of an
/// arena (2,200 bytes) and of a heap (48).
const FIRST_WITHIN: u64 = 4096;
/// So many good headers in a row are no accident: of random words, one in
/// 2^20 or so would be one.
const CONVINCING: usize = 16;

/// What a part of a heap is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A chunk that is handed out, or that a cache of freed ones holds (tcache and
    /// fast bins, whose chunks look the same).
    Used,
    /// A chunk that is free, and what describes the heap itself.
    Free,
    /// Where the chain broke.
    Unknown,
}

/// Reads the word at an address; `None` if it is not in memory.
pub type Read<'a> = dyn FnMut(u64) -> Option<u64> + 'a;

/// Cuts a heap into parts, upward and without gaps. `blocks`: those of the ledger in
/// it, by address. False if it is none of glibc's: then nothing was visited.
pub fn walk(
    heap: &Range<u64>,
    blocks: &[Block],
    read: &mut Read<'_>,
    visit: &mut dyn FnMut(Range<u64>, Part),
) -> bool {
    let Some(first) = first(heap, blocks, read) else { return false };
    // What a chunk has is its size, 8 bytes behind its beginning, and all up to the
    // next one's: the first word of a header belongs to the chunk before.
    let word = |at: u64| if at == heap.end { at } else { at + 8 };
    visit(heap.start..word(first), Part::Free);
    let mut at = first;
    while at < heap.end {
        let Some(chunk) = chunk(at, heap.end, read) else {
            // Taken up again at the first block behind.
            let behind = blocks.partition_point(|block| block.address < at + 2 * HEADER);
            let known = blocks[behind..].iter().map(|block| block.address - HEADER);
            let next = known.into_iter().find(|next| chunk(*next, heap.end, read).is_some());
            let next = next.unwrap_or(heap.end);
            visit(word(at)..word(next), Part::Unknown);
            at = next;
            continue;
        };
        let kind = if chunk.used { Part::Used } else { Part::Free };
        visit(word(at)..word(chunk.addresses.end), kind);
        at = chunk.addresses.end;
    }
    true
}

struct Chunk {
    addresses: Range<u64>,
    used: bool,
}

/// The chunk at an address, if what stands there may be its header.
fn chunk(at: u64, end: u64, read: &mut Read<'_>) -> Option<Chunk> {
    let word = read(at + 8)?;
    let size = word & !FLAGS;
    // Two headers without a chunk end a heap that is followed by another one.
    if (size == HEADER || size == 0) && end - at <= 2 * SMALLEST {
        return Some(Chunk { addresses: at..end, used: false });
    }
    let next = at.checked_add(size)?;
    if word & MAPPED != 0 || size < SMALLEST || !size.is_multiple_of(ALIGNMENT) || next > end {
        return None;
    }
    if next == end {
        return Some(Chunk { addresses: at..end, used: false });
    }
    let behind = read(next + 8)?;
    Some(Chunk { addresses: at..next, used: behind & PREVIOUS_IN_USE != 0 })
}

/// Where the first chunk of a heap is.
fn first(heap: &Range<u64>, blocks: &[Block], read: &mut Read<'_>) -> Option<u64> {
    let known = blocks.first().map_or(u64::MAX, |block| block.address.saturating_sub(HEADER));
    let begin = heap.start.next_multiple_of(ALIGNMENT);
    let last = begin.saturating_add(FIRST_WITHIN).min(heap.end);
    (begin..last).step_by(ALIGNMENT as usize).find(|&candidate| {
        let mut at = candidate;
        for _ in 0..CONVINCING {
            match chunk(at, heap.end, read) {
                None => return false,
                Some(chunk) if chunk.addresses.end == heap.end => return true,
                Some(chunk) => at = chunk.addresses.end,
            }
            if at == known {
                return true;
            }
        }
        true
    })
}

/// The bytes of a chunk that has a mapping of its own, if there is one at the
/// beginning of this page.
pub fn mapped_chunk(page: u64, end: u64, read: &mut Read<'_>) -> Option<Range<u64>> {
    let (before, word) = (read(page)?, read(page + 8)?);
    let size = word & !FLAGS;
    let fits = size.is_multiple_of(4096) && size > 0 && page.checked_add(size)? <= end;
    (before == 0 && word & FLAGS == MAPPED && fits).then(|| page..page + size)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const BASE: u64 = 0x5555_0000_0000;

    fn block(address: u64, size: u64) -> Block {
        Block { address, size, site: 0, birth_ns: 0, weight: 1 }
    }

    /// Words of a heap of chunks, each with whether it is in use.
    fn heap(chunks: &[(u64, bool)]) -> (HashMap<u64, u64>, u64) {
        let (mut words, mut at, mut before) = (HashMap::new(), BASE, true);
        for (size, used) in chunks {
            words.insert(at + 8, size | u64::from(before));
            (before, at) = (*used, at + size);
        }
        (words, at)
    }

    fn parts(
        words: &HashMap<u64, u64>,
        range: Range<u64>,
        blocks: &[Block],
    ) -> Option<Vec<(u64, Part)>> {
        let mut parts = Vec::new();
        let mut read = |address: u64| Some(words.get(&address).copied().unwrap_or(0));
        let mut visit = |part: Range<u64>, kind| parts.push((part.end - part.start, kind));
        walk(&range, blocks, &mut read, &mut visit).then_some(parts)
    }

    /// Check that a chain is followed to the top, whatever is in front of it, and
    /// that a heap's end without a top is one.
    #[test]
    fn chains_are_followed() {
        let (words, end) =
            heap(&[(0x290, true), (32, true), (48, false), (64, true), (512, false)]);
        let chunks = [(0x290, Part::Used), (32, Part::Used), (48, Part::Free), (64, Part::Used)];
        let with_front = |front: u64| {
            let mut parts = vec![(front + 8, Part::Free)];
            parts.extend(chunks);
            parts.push((512 - 8, Part::Free));
            Some(parts)
        };
        assert_eq!(parts(&words, BASE..end, &[]), with_front(0));
        assert_eq!(parts(&words, BASE - 0x8d0..end, &[]), with_front(0x8d0));
        // Fence posts.
        let (words, end) = heap(&[(0x290, true), (32, false), (16, true), (16, true)]);
        let words = words.into_iter().chain([(end - 8, 1)]).collect();
        let posts = [(8, Part::Free), (0x290, Part::Used), (32, Part::Free), (24, Part::Free)];
        assert_eq!(parts(&words, BASE..end, &[]), Some(posts.to_vec()));
        // Nothing of glibc's.
        assert_eq!(parts(&HashMap::new(), BASE..BASE + 0x10000, &[]), None);
    }

    /// Check that a broken chain is taken up at the next block of the ledger.
    #[test]
    fn broken_chains_are_taken_up() {
        let mut chunks = vec![(64, true); 40];
        chunks.push((512, false));
        let (mut words, end) = heap(&chunks);
        words.insert(BASE + 64 * 20 + 8, 0xdead_beef_dead);
        let blocks = [block(BASE + 16, 40), block(BASE + 64 * 22 + 16, 40)];
        let parts = parts(&words, BASE..end, &blocks).unwrap();
        assert_eq!(parts[20..23], [(64, Part::Used), (128, Part::Unknown), (64, Part::Used)]);
        assert_eq!(parts.iter().map(|(size, _)| size).sum::<u64>(), end - BASE);
    }

    /// Check the header of a chunk with a mapping of its own.
    #[test]
    fn mapped_chunks() {
        let words = HashMap::from([(BASE, 0), (BASE + 8, 0x2_1002), (BASE + 4096, 7)]);
        let mut read = |address: u64| Some(words.get(&address).copied().unwrap_or(0));
        let end = BASE + 0x2_1000;
        assert_eq!(mapped_chunk(BASE, end, &mut read), Some(BASE..end));
        assert_eq!(mapped_chunk(BASE, end - 4096, &mut read), None);
        assert_eq!(mapped_chunk(BASE + 4096, end, &mut read), None);
        assert_eq!(mapped_chunk(BASE + 8192, end, &mut read), None);
    }

    proptest! {
        /// Check that whatever is in memory, parts cover the heap without a gap.
        #[test]
        fn parts_cover_the_heap(
            words in prop::collection::hash_map(0u64..512, prop_oneof![
                any::<u64>(), 0u64..512, Just(33u64), Just(49), Just(2)], 0..512),
            pages in 1u64..4,
            blocks in prop::collection::btree_set(1u64..1000, 0..20),
            missing in prop::collection::hash_set(0u64..512, 0..20),
        ) {
            let range = BASE..BASE + pages * 4096;
            let blocks: Vec<Block> = blocks
                .into_iter()
                .map(|place| block(BASE + place * 16, 16))
                .filter(|block| range.contains(&block.address))
                .collect();
            let mut read = |address: u64| {
                let place = (address - BASE) / 8;
                (!missing.contains(&place)).then(|| words.get(&place).copied().unwrap_or(0))
            };
            let mut at = range.start;
            let mut visit = |part: Range<u64>, _| {
                assert_eq!(part.start, at);
                assert!(part.end > part.start);
                at = part.end;
            };
            if walk(&range, &blocks, &mut read, &mut visit) {
                prop_assert_eq!(at, range.end);
            } else {
                prop_assert_eq!(at, range.start);
            }
        }
    }
}
