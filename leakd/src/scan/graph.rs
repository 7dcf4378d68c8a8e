//! What can be reached, and what of the rest hangs on what.
//!
//! The classes are valgrind's (its manual, 4.2.8): a block is *still reachable*
//! if a chain of pointers to the starts of blocks leads to it from a root;
//! *possibly lost* if every chain has a pointer to the inside of a block;
//! *definitely lost* if there is none; *indirectly lost* if only blocks that are
//! lost lead to it. Of a cycle that is lost, one block is taken to be
//! definitely lost and the others to hang on it.
//!
//! One class is leakd's own, [`Reach::Unknown`], which reports count as possibly
//! lost: other than valgrind, leakd has not seen all of the heap.

/// How a block can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// Not at all, and nothing that is lost leads to it either.
    Definitely,
    /// Only from blocks that are lost.
    Indirectly,
    /// Only by way of pointers to the inside of blocks.
    Possibly,
    /// By pointers to the starts of blocks, but only from memory of the heap that
    /// the ledger does not know: blocks that are older than the trace, or freed
    /// ones that still hold what they held.
    Unknown,
    /// By pointers to the starts of blocks.
    Reachable,
}

/// Pointers from blocks to blocks, and from roots to blocks.
///
/// Pointers are found while memory is read from end to end, by several threads,
/// in any order; what they mean is worked out afterwards.
#[derive(Debug, Default)]
pub struct Pointers {
    /// Blocks that a root points to, with whether it is to their start.
    roots: Vec<Edge>,
    /// From the block of this number.
    from: Vec<u32>,
    /// To this one.
    to: Vec<Edge>,
    /// Pointers that were taken for roots, because there were too many.
    overflowed: u64,
}

/// A pointer's target: the number of a block, and whether to its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edge(u32);

impl Edge {
    const TO_START: u32 = 1 << 31;
    /// Of roots: it is memory of the heap that the ledger does not know.
    const UNKNOWN: u32 = 1 << 30;

    const fn new(block: u32, to_start: bool, unknown: bool) -> Self {
        Self(
            block
                | if to_start { Self::TO_START } else { 0 }
                | if unknown { Self::UNKNOWN } else { 0 },
        )
    }

    const fn block(self) -> usize {
        (self.0 & !(Self::TO_START | Self::UNKNOWN)) as usize
    }

    const fn unknown(self) -> bool {
        self.0 & Self::UNKNOWN != 0
    }

    const fn to_start(self) -> bool {
        self.0 & Self::TO_START != 0
    }
}

impl Pointers {
    /// Pointers between blocks that are kept: 8 bytes each. What is beyond is
    /// taken for a root: blocks may then be called reachable that are not, and
    /// never the other way round.
    pub const MOST: usize = 128 << 20;

    /// A root points to a block; `unknown`: it is memory of the heap that the
    /// ledger does not know.
    #[inline]
    pub fn root(&mut self, to: u32, to_start: bool, unknown: bool) {
        let edge = Edge::new(to, to_start, unknown);
        // What points to one block often does so from many neighbouring words.
        if self.roots.last() != Some(&edge) {
            self.roots.push(edge);
        }
    }

    /// A block points to a block.
    #[inline]
    pub fn block(&mut self, from: u32, to: u32, to_start: bool) {
        if from == to {
            return;
        }
        if self.from.len() == Self::MOST {
            self.overflowed += 1;
            self.root(to, to_start, false);
            return;
        }
        self.from.push(from);
        self.to.push(Edge::new(to, to_start, false));
    }

    /// Takes over what another thread found.
    pub fn append(&mut self, mut other: Self) {
        self.roots.append(&mut other.roots);
        let room = Self::MOST.saturating_sub(self.from.len());
        if other.from.len() > room {
            self.overflowed += (other.from.len() - room) as u64;
            self.roots.extend(other.to.drain(room..));
            other.from.truncate(room);
        }
        self.from.append(&mut other.from);
        self.to.append(&mut other.to);
        self.overflowed += other.overflowed;
    }

    /// Keeps one of each. To be called when there are about twice as many as
    /// after the last call.
    pub fn deduplicate(&mut self) {
        self.roots.sort_unstable_by_key(|edge| edge.0);
        self.roots.dedup();
        let edges = self.from.iter().zip(&self.to);
        let mut both: Vec<u64> =
            edges.map(|(from, to)| u64::from(*from) << 32 | u64::from(to.0)).collect();
        both.sort_unstable();
        both.dedup();
        self.from = both.iter().map(|edge| (edge >> 32) as u32).collect();
        self.to = both.iter().map(|edge| Edge(*edge as u32)).collect();
    }

    /// How many pointers there are.
    pub fn len(&self) -> usize {
        self.roots.len() + self.from.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those from block to block among the blocks that `number` gives a new
    /// number to.
    pub fn among(&self, number: impl Fn(u32) -> Option<u32>) -> Self {
        let mut found = Self::default();
        for (from, to) in self.from.iter().zip(&self.to) {
            if let (Some(from), Some(block)) = (number(*from), number(to.block() as u32)) {
                found.block(from, block, to.to_start());
            }
        }
        found
    }

    /// Pointers that were taken for roots because there were too many.
    pub fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// How each of `blocks` blocks can be reached.
    ///
    /// # Panics
    /// If a pointer leads to a block beyond that number.
    pub fn classify(&self, blocks: usize) -> Vec<Reach> {
        let outgoing = Outgoing::new(blocks, &self.from, &self.to);
        let mut reach = vec![Reach::Definitely; blocks];
        let mut open: Vec<usize> = Vec::new();
        // The strongest first: what they reach is not worth a second visit.
        for strength in [Reach::Reachable, Reach::Unknown, Reach::Possibly] {
            let counts = |root: &Edge| match strength {
                Reach::Reachable => root.to_start() && !root.unknown(),
                Reach::Unknown => root.to_start(),
                _ => true,
            };
            let by_start = strength != Reach::Possibly;
            for root in self.roots.iter().filter(|root| counts(root)) {
                raise(&mut reach, &mut open, root.block(), strength);
            }
            if !by_start {
                // Pointers to the inside from what is reached already.
                let reached = (0..blocks).filter(|from| reach[*from] > Reach::Possibly);
                for from in reached.collect::<Vec<_>>() {
                    for edge in outgoing.of(from) {
                        raise(&mut reach, &mut open, edge.block(), strength);
                    }
                }
            }
            while let Some(from) = open.pop() {
                for edge in outgoing.of(from) {
                    if edge.to_start() || !by_start {
                        raise(&mut reach, &mut open, edge.block(), strength);
                    }
                }
            }
        }
        hang(&outgoing, &mut reach);
        reach
    }
}

fn raise(reach: &mut [Reach], open: &mut Vec<usize>, block: usize, to: Reach) {
    if reach[block] < to {
        reach[block] = to;
        open.push(block);
    }
}

/// Finds, among the lost, those that hang on others.
///
/// Whoever is met first in a walk that goes on from block to block leads, but
/// something may lead to it that comes later. So the walk is done again from
/// those alone, the last one first: whatever leads to one of them came later, or
/// it would have been met from there.
fn hang(outgoing: &Outgoing, reach: &mut [Reach]) {
    let lost: Vec<usize> =
        (0..reach.len()).filter(|&one| reach[one] == Reach::Definitely).collect();
    let mut leaders = walk(outgoing, reach, lost.iter().copied());
    for &block in &lost {
        reach[block] = Reach::Definitely;
    }
    leaders = walk(outgoing, reach, leaders.into_iter().rev());
    for leader in leaders {
        reach[leader] = Reach::Definitely;
    }
}

/// Makes all blocks that hang on `from`, and those themselves, indirectly lost;
/// gives those of `from` that were not met before.
fn walk(outgoing: &Outgoing, reach: &mut [Reach], from: impl Iterator<Item = usize>) -> Vec<usize> {
    let (mut leaders, mut open) = (Vec::new(), Vec::new());
    for leader in from {
        if reach[leader] != Reach::Definitely {
            continue;
        }
        reach[leader] = Reach::Indirectly;
        leaders.push(leader);
        open.push(leader);
        while let Some(from) = open.pop() {
            for edge in outgoing.of(from) {
                if reach[edge.block()] == Reach::Definitely {
                    reach[edge.block()] = Reach::Indirectly;
                    open.push(edge.block());
                }
            }
        }
    }
    leaders
}

/// Pointers by the block that they are in.
struct Outgoing {
    /// Where each block's begin in `edges`; one more at the end.
    begins: Vec<u32>,
    edges: Vec<Edge>,
}

impl Outgoing {
    fn new(blocks: usize, from: &[u32], to: &[Edge]) -> Self {
        let mut begins = vec![0u32; blocks + 1];
        for &from in from {
            begins[from as usize + 1] += 1;
        }
        for block in 0..blocks {
            begins[block + 1] += begins[block];
        }
        let mut next = begins.clone();
        let mut edges = vec![Edge(0); to.len()];
        for (&from, &to) in from.iter().zip(to) {
            edges[next[from as usize] as usize] = to;
            next[from as usize] += 1;
        }
        Self { begins, edges }
    }

    fn of(&self, block: usize) -> &[Edge] {
        &self.edges[self.begins[block] as usize..self.begins[block + 1] as usize]
    }
}

/// The number of pointers must be countable in a `u32`.
const _: () = assert!(Pointers::MOST < u32::MAX as usize);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Classes of a graph: `roots` and `edges` with whether they are to a start.
    fn classes(blocks: usize, roots: &[(u32, bool)], edges: &[(u32, u32, bool)]) -> Vec<Reach> {
        let mut pointers = Pointers::default();
        for &(to, to_start) in roots {
            pointers.root(to, to_start, false);
        }
        for &(from, to, to_start) in edges {
            pointers.block(from, to, to_start);
        }
        pointers.classify(blocks)
    }

    use Reach::{Definitely, Indirectly, Possibly, Reachable};

    /// Check the table of valgrind's manual (4.2.8), case by case: A is block
    /// 0, B is block 1.
    #[test]
    fn as_valgrind_has_it() {
        let start = (0, true);
        let inside = (0, false);
        assert_eq!(classes(1, &[start], &[]), [Reachable]); // 1
        assert_eq!(classes(2, &[start], &[(0, 1, true)]), [Reachable, Reachable]); // 2
        assert_eq!(classes(1, &[], &[]), [Definitely]); // 3
        assert_eq!(classes(2, &[], &[(0, 1, true)]), [Definitely, Indirectly]); // 4
        assert_eq!(classes(1, &[inside], &[]), [Possibly]); // 5
        assert_eq!(classes(2, &[start], &[(0, 1, false)]), [Reachable, Possibly]); // 6
        assert_eq!(classes(2, &[inside], &[(0, 1, true)]), [Possibly, Possibly]); // 7
        assert_eq!(classes(2, &[inside], &[(0, 1, false)]), [Possibly, Possibly]); // 8
        assert_eq!(classes(2, &[], &[(0, 1, false)]), [Definitely, Indirectly]); // 9
    }

    /// Check that a block which several chains lead to has the best of them,
    /// that cycles end, and that of a lost one a single block leads.
    #[test]
    fn chains_and_cycles() {
        let roots = [(0, true), (1, false)];
        let edges = [(0, 2, false), (1, 3, true), (3, 2, true), (0, 3, true)];
        assert_eq!(classes(4, &roots, &edges), [Reachable, Possibly, Reachable, Reachable]);
        let cycle = [(0, 1, true), (1, 2, true), (2, 0, true)];
        assert_eq!(classes(3, &[], &cycle), [Definitely, Indirectly, Indirectly]);
        assert_eq!(classes(3, &[(1, true)], &cycle), [Reachable; 3]);
        // A block found to lead is found to hang on a later one.
        let late = [(0, 1, true), (2, 0, true)];
        assert_eq!(classes(3, &[], &late), [Indirectly, Indirectly, Definitely]);
        // It points to itself.
        assert_eq!(classes(1, &[], &[(0, 0, true)]), [Definitely]);
    }

    /// Check that what only unknown memory of the heap leads to is told apart, and
    /// that a better root wins.
    #[test]
    fn unknown_memory() {
        let mut pointers = Pointers::default();
        pointers.root(0, true, true);
        pointers.block(0, 1, true);
        pointers.block(1, 2, false);
        pointers.root(3, false, true);
        pointers.root(4, true, true);
        pointers.root(4, true, false);
        pointers.block(4, 5, true);
        pointers.block(5, 1, false);
        use Reach::Unknown;
        let expected = [Unknown, Unknown, Possibly, Possibly, Reachable, Reachable, Definitely];
        assert_eq!(pointers.classify(7), expected);
        pointers.append(pointers.among(Some));
        let before = pointers.len();
        pointers.deduplicate();
        assert_eq!((before, pointers.len()), (12, 8));
        assert_eq!(pointers.classify(7), expected);
        let one = pointers.among(|block| (block >= 4).then(|| block - 4));
        assert_eq!(one.classify(3), [Definitely, Indirectly, Definitely]);
    }

    proptest! {
        /// Check reachability against a search that tries every chain, and that
        /// each lost block leads or hangs on one that does.
        #[test]
        fn same_as_a_search(
            roots in prop::collection::vec((0u32..30, any::<bool>()), 0..4),
            edges in prop::collection::vec((0u32..30, 0u32..30, any::<bool>()), 0..60),
        ) {
            let found = classes(30, &roots, &edges);
            let spread = |mut reached: Vec<bool>, starts_only: bool| {
                loop {
                    let mut changed = false;
                    for &(from, to, to_start) in &edges {
                        if reached[from as usize]
                            && (to_start || !starts_only)
                            && !std::mem::replace(&mut reached[to as usize], true)
                        {
                            changed = true;
                        }
                    }
                    if !changed {
                        return reached;
                    }
                }
            };
            let from_roots = |starts_only: bool| {
                let mut reached = vec![false; 30];
                for &(to, to_start) in &roots {
                    reached[to as usize] |= to_start || !starts_only;
                }
                spread(reached, starts_only)
            };
            let (by_starts, by_any) = (from_roots(true), from_roots(false));
            for block in 0..30 {
                prop_assert_eq!(found[block] == Reachable, by_starts[block]);
                prop_assert_eq!(found[block] == Possibly, by_any[block] && !by_starts[block]);
            }
            let leaders = found.iter().map(|reach| *reach == Definitely).collect();
            let hanging = spread(leaders, false);
            for block in 0..30 {
                if found[block] == Indirectly {
                    prop_assert!(hanging[block]);
                }
            }
            // No leader hangs on another one.
            for leader in (0..30).filter(|block| found[*block] == Definitely) {
                let mut alone = vec![false; 30];
                alone[leader] = true;
                let hanging = spread(alone, false);
                for other in (0..30).filter(|other| *other != leader) {
                    prop_assert!(!(hanging[other] && found[other] == Definitely));
                }
            }
        }
    }
}
