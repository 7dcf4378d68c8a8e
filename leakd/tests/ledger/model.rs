//! What the ledger must hold, by the meaning of the calls and what they
//! returned.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::driver::Outcome;
use super::operation::{Kind, Operation};

/// What happened at the call site of one kind of call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SiteTotals {
    pub allocated_blocks: u64,
    pub allocated_bytes: u64,
    pub freed_blocks: u64,
    pub freed_bytes: u64,
}

/// Blocks and their bytes that are in the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outstanding {
    pub blocks: u64,
    pub bytes: u64,
}

/// All that is compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub inserted: u64,
    pub removed: u64,
    pub failed: u64,
    pub unknown_frees: u64,
    /// By the kind of call that allocated. Sites at which nothing was
    /// allocated are left out.
    pub sites: BTreeMap<Kind, SiteTotals>,
    /// What the ledger itself holds, by the kind of call that allocated it.
    pub outstanding: BTreeMap<Kind, Outstanding>,
    /// Everything that must not happen, by name.
    pub faults: BTreeMap<&'static str, u64>,
}

/// What allocators do differently in ways that a tracer sees.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// A reallocarray whose product overflows is seen to fail. (glibc's has
    /// no probe: it only passes calls on to realloc, and does not pass on
    /// these.)
    pub overflow_is_seen: bool,
}

/// What an operation left behind.
#[derive(Clone, Copy, Debug)]
enum Held {
    Nothing,
    /// A block from before the attach.
    Unknown,
    Known { kind: Kind, size: u64 },
}

/// The model of one process's heap.
#[derive(Debug)]
pub struct Model {
    habits: Habits,
    held: HashMap<usize, Held>,
    totals: Totals,
}

impl Model {
    /// An empty ledger. Operations that it is not told of happened before the
    /// attach.
    pub fn new(habits: Habits) -> Self {
        Self { habits, held: HashMap::new(), totals: Totals::default() }
    }

    /// Takes note of operations, numbered from `first` on.
    pub fn perform(&mut self, first: usize, operations: &[Operation], outcomes: &[Outcome]) {
        for (index, (operation, outcome)) in operations.iter().zip(outcomes).enumerate() {
            let held = self.step(operation, outcome);
            let nothing = matches!(held, Held::Nothing);
            assert_eq!(nothing, outcome.live == 0, "model and driver differ: {operation:?}");
            self.held.insert(first + index, held);
        }
    }

    fn step(&mut self, operation: &Operation, outcome: &Outcome) -> Held {
        let source = match operation.source {
            Some(source) => self.held.insert(source, Held::Nothing).unwrap_or(Held::Unknown),
            None => Held::Nothing,
        };
        let Operation { kind, size, extra, .. } = *operation;
        match kind {
            Kind::Free => {
                self.freed(source);
                Held::Nothing
            }
            Kind::Realloc => self.resized(kind, Some(size), source, outcome.address),
            Kind::Reallocarray => {
                self.resized(kind, extra.checked_mul(size), source, outcome.address)
            }
            _ if outcome.address == 0 => {
                self.totals.failed += 1;
                Held::Nothing
            }
            // A product that overflows gives no block.
            Kind::Calloc => self.allocated(kind, extra * size),
            _ => self.allocated(kind, size),
        }
    }

    /// `size`: `None` if the product overflowed.
    fn resized(&mut self, kind: Kind, size: Option<u64>, source: Held, address: u64) -> Held {
        match size {
            Some(size) if address != 0 => {
                self.freed(source);
                self.allocated(kind, size)
            }
            Some(0) => {
                self.totals.failed += 1;
                self.freed(source);
                Held::Nothing
            }
            Some(_) => {
                self.totals.failed += 1;
                source
            }
            None => {
                assert_eq!(address, 0, "a block for a product that overflowed");
                self.totals.failed += u64::from(self.habits.overflow_is_seen);
                source
            }
        }
    }

    fn allocated(&mut self, kind: Kind, size: u64) -> Held {
        self.totals.inserted += 1;
        let site = self.totals.sites.entry(kind).or_default();
        site.allocated_blocks += 1;
        site.allocated_bytes += size;
        let outstanding = self.totals.outstanding.entry(kind).or_default();
        outstanding.blocks += 1;
        outstanding.bytes += size;
        Held::Known { kind, size }
    }

    fn freed(&mut self, held: Held) {
        match held {
            Held::Nothing => {}
            Held::Unknown => self.totals.unknown_frees += 1,
            Held::Known { kind, size } => {
                self.totals.removed += 1;
                let site = self.totals.sites.entry(kind).or_default();
                site.freed_blocks += 1;
                site.freed_bytes += size;
                let outstanding = self.totals.outstanding.entry(kind).or_default();
                outstanding.blocks -= 1;
                outstanding.bytes -= size;
            }
        }
    }

    /// Which of these operations have left a block.
    pub fn still_held(&self, among: Range<usize>) -> impl Iterator<Item = usize> + '_ {
        among.filter(|number| !matches!(self.held.get(number), None | Some(Held::Nothing)))
    }

    /// What the ledger must say now.
    pub fn totals(&self) -> Totals {
        let mut totals = self.totals.clone();
        totals.outstanding.retain(|_, outstanding| outstanding.blocks > 0);
        totals
    }
}
