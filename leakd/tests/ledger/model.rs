//! What the ledger must hold, by the meaning of the calls and what they
//! returned.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;

use super::driver::Outcome;
use super::operation::{Kind, Operation};

/// What happened at the call site of one kind of call.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct SiteTotals {
    pub allocated_blocks: u64,
    pub allocated_bytes: u64,
    pub freed_blocks: u64,
    pub freed_bytes: u64,
}

/// Blocks and their bytes that are in the ledger.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Outstanding {
    pub blocks: u64,
    pub bytes: u64,
}

impl fmt::Debug for SiteTotals {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { allocated_blocks, allocated_bytes, freed_blocks, freed_bytes } = self;
        write!(to, "allocated {allocated_blocks} blocks, {allocated_bytes} bytes; ")?;
        write!(to, "freed {freed_blocks} blocks, {freed_bytes} bytes")
    }
}

impl fmt::Debug for Outstanding {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "outstanding {} blocks, {} bytes", self.blocks, self.bytes)
    }
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

impl Totals {
    /// The same, with all call sites taken for one.
    pub fn without_sites(mut self) -> Self {
        let mut sites = SiteTotals::default();
        for site in std::mem::take(&mut self.sites).into_values() {
            sites.allocated_blocks += site.allocated_blocks;
            sites.allocated_bytes += site.allocated_bytes;
            sites.freed_blocks += site.freed_blocks;
            sites.freed_bytes += site.freed_bytes;
        }
        let mut outstanding = Outstanding::default();
        for of_site in std::mem::take(&mut self.outstanding).into_values() {
            outstanding.blocks += of_site.blocks;
            outstanding.bytes += of_site.bytes;
        }
        self.sites.insert(Kind::Malloc, sites);
        self.outstanding.insert(Kind::Malloc, outstanding);
        self
    }
}

/// What a tracer sees that is not in the meaning of the calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Habits {
    /// A reallocarray whose product overflows is seen to fail. (glibc's has
    /// no probe: it only passes calls on to realloc, and does not pass on
    /// these.)
    pub overflow_is_seen: bool,
    /// Allocators in front of the one that has the memory. Each of them that
    /// is handed an address that is in no ledger counts a free of an unknown
    /// block.
    pub interposers: u64,
    /// Of these, the ones up to the last that keeps a header in front of each
    /// block: they do not know blocks by the addresses that are in the ledger.
    pub blind: u64,
    /// Bytes of that header.
    pub header: u64,
    /// The interposer keeps some blocks that it is to free; see
    /// `interposer.c`.
    pub swallows: bool,
}

/// What an operation left behind.
#[derive(Clone, Copy, Debug)]
enum Held {
    Nothing,
    /// A block from before the attach.
    Unknown {
        address: u64,
    },
    Known {
        address: u64,
        kind: Kind,
        size: u64,
    },
}

/// The model of one process's heap.
#[derive(Debug)]
pub struct Model {
    habits: Habits,
    held: HashMap<usize, Held>,
    totals: Totals,
}

impl Model {
    /// An empty ledger; what came of the operations before the attach,
    /// numbered from 0.
    pub fn new(habits: Habits, before: &[Outcome]) -> Self {
        let unknown = |outcome: &Outcome| Held::Unknown { address: outcome.live };
        let held = before.iter().map(unknown).enumerate().collect();
        Self { habits, held, totals: Totals::default() }
    }

    /// Takes note of operations, numbered from `first` on.
    pub fn perform(&mut self, first: usize, operations: &[Operation], outcomes: &[Outcome]) {
        for (index, (operation, outcome)) in operations.iter().zip(outcomes).enumerate() {
            let held = self.step(operation, outcome.address);
            let nothing = matches!(held, Held::Nothing);
            assert_eq!(nothing, outcome.live == 0, "model and driver differ: {operation:?}");
            self.held.insert(first + index, held);
        }
    }

    /// A call that returned `address`.
    fn step(&mut self, operation: &Operation, address: u64) -> Held {
        let source = operation
            .source
            .and_then(|source| self.held.insert(source, Held::Nothing))
            .unwrap_or(Held::Nothing);
        let Operation { kind, size, extra, .. } = *operation;
        match kind {
            Kind::Free => {
                self.given_back(source);
                Held::Nothing
            }
            Kind::Realloc => self.resized(kind, Some(size), source, address),
            Kind::Reallocarray => self.resized(kind, extra.checked_mul(size), source, address),
            _ if address == 0 => {
                self.totals.failed += 1;
                Held::Nothing
            }
            // A product that overflows gives no block.
            Kind::Calloc => self.allocated(kind, extra * size, address),
            _ => self.allocated(kind, size, address),
        }
    }

    /// By free().
    fn given_back(&mut self, held: Held) {
        let address = match held {
            Held::Nothing => return,
            Held::Unknown { address } | Held::Known { address, .. } => address,
        };
        let unknown = matches!(held, Held::Unknown { .. });
        if self.habits.swallows && address / 16 % 3 == 0 {
            self.totals.unknown_frees += u64::from(unknown);
            return;
        }
        let Habits { interposers, blind, .. } = self.habits;
        self.totals.unknown_frees += if unknown { interposers } else { blind };
        self.freed(held);
    }

    /// `size`: `None` if the product overflowed.
    fn resized(&mut self, kind: Kind, size: Option<u64>, source: Held, address: u64) -> Held {
        match size {
            Some(size) if address != 0 => {
                self.freed(source);
                self.allocated(kind, size, address)
            }
            Some(0) => {
                self.totals.failed += 1;
                if self.habits.header > 0 && !matches!(source, Held::Nothing) {
                    // The one with the header calls free instead.
                    let behind = self.habits.interposers - self.habits.blind;
                    let unknown = matches!(source, Held::Unknown { .. });
                    self.totals.unknown_frees += 1 + if unknown { behind } else { 0 };
                }
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

    fn allocated(&mut self, kind: Kind, size: u64, address: u64) -> Held {
        let size = size + self.habits.header;
        self.totals.inserted += 1;
        let site = self.totals.sites.entry(kind).or_default();
        site.allocated_blocks += 1;
        site.allocated_bytes += size;
        let outstanding = self.totals.outstanding.entry(kind).or_default();
        outstanding.blocks += 1;
        outstanding.bytes += size;
        Held::Known { address, kind, size }
    }

    /// By the allocator that has the memory.
    fn freed(&mut self, held: Held) {
        match held {
            Held::Nothing => {}
            Held::Unknown { .. } => self.totals.unknown_frees += 1,
            Held::Known { kind, size, .. } => {
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
