//! A ledger that is full: what is old stays, what finds no room is counted.
//!
//! The kernel refuses the element after `max_entries`. For large maps it
//! counts elements on each CPU in batches of 32, but sums them up exactly once
//! the estimate is near the limit (kernel/bpf/hashtab.c, is_map_full), so the
//! limit is exact. Only the check and the count are two steps: CPUs that
//! insert at the same moment may exceed the limit by one each.

use leakd::engine::Settings;
use leakd_common::target::Counter;

use super::driver::{Driver, Outcome};
use super::model::{Outstanding, SiteTotals, Totals};
use super::operation::{Kind, Operation, THREADS};
use super::trace::Trace;

struct Full {
    trace: Trace,
    driver: Driver,
    slot: u16,
    next: usize,
}

impl Full {
    fn start(quota: u32) -> Self {
        let mut trace = Trace::start(Settings { quota, ..Settings::default() });
        let driver = Driver::start(&[]);
        let slot = trace.attach(driver.pid());
        Self { trace, driver, slot, next: 0 }
    }

    fn run(&mut self, operations: &[Operation]) -> (usize, Vec<Outcome>) {
        let first = self.next;
        self.next += operations.len();
        (first, self.driver.run(first, operations))
    }

    fn totals(&mut self) -> Totals {
        self.trace.totals(self.slot, &self.driver)
    }
}

fn resize(source: usize, size: u64) -> Operation {
    Operation { source: Some(source), ..Operation::new(Kind::Realloc, 0, size) }
}

/// Check, on one thread, that a ledger for `quota` blocks takes exactly so
/// many, keeps them, counts the others to the byte, and takes new ones as soon
/// as old ones are freed.
fn keeps_the_old_and_counts_the_lost(quota: u32) {
    let quota = u64::from(quota);
    let mut full = Full::start(quota as u32);
    // The old ones, which fill it, ...
    let old: Vec<_> =
        (0..quota).map(|_| Operation { extra: 1, ..Operation::new(Kind::Calloc, 0, 48) }).collect();
    let (old, _) = full.run(&old);
    // ... and those that find no room.
    let late: Vec<_> =
        (0..4 * quota).map(|number| Operation::new(Kind::Malloc, 0, 1 + number)).collect();
    let (late, _) = full.run(&late);
    let late_bytes: u64 = (1..=4 * quota).sum();

    let mut expected = Totals { inserted: quota, ..Totals::default() };
    expected.faults.insert("lost: ledger full", 4 * quota);
    expected.faults.insert("lost: bytes", late_bytes);
    let site = |blocks, bytes| SiteTotals {
        allocated_blocks: blocks,
        allocated_bytes: bytes,
        ..SiteTotals::default()
    };
    expected.sites.insert(Kind::Calloc, site(quota, 48 * quota));
    expected.outstanding.insert(Kind::Calloc, Outstanding { blocks: quota, bytes: 48 * quota });
    assert_eq!(full.totals(), expected, "after filling it");

    // A resize needs no more room than it has; one that fails changes
    // nothing; frees of lost blocks are not known; free(NULL) is nothing.
    let tenth = quota / 10;
    let mut calls = Vec::new();
    for number in 0..tenth as usize {
        calls.push(resize(old + number, 96));
        calls.push(resize(old + tenth as usize + number, u64::MAX / 2));
        calls.push(Operation { thread: 0, ..Operation::free(late + number) });
        calls.push(Operation::new(Kind::Free, 0, 0));
    }
    full.run(&calls);
    expected.inserted += tenth;
    expected.removed += tenth;
    expected.failed += tenth;
    expected.unknown_frees += tenth;
    let calloc = expected.sites.get_mut(&Kind::Calloc).expect("inserted above");
    (calloc.freed_blocks, calloc.freed_bytes) = (tenth, 48 * tenth);
    expected.sites.insert(Kind::Realloc, site(tenth, 96 * tenth));
    let (left, resized) = (quota - tenth, Outstanding { blocks: tenth, bytes: 96 * tenth });
    expected.outstanding.insert(Kind::Calloc, Outstanding { blocks: left, bytes: 48 * left });
    expected.outstanding.insert(Kind::Realloc, resized);
    assert_eq!(full.totals(), expected, "after resizing at the limit");

    // Frees make room for just as many.
    let old_left = (old + tenth as usize)..(old + quota as usize);
    let frees: Vec<_> =
        old_left.step_by(3).map(|old| Operation { thread: 0, ..Operation::free(old) }).collect();
    // The failed resizes hold the second tenth now; free those by them.
    let frees: Vec<_> = frees
        .into_iter()
        .filter(|free| free.source.is_some_and(|old_block| old_block >= old + 2 * tenth as usize))
        .collect();
    let room = frees.len() as u64;
    full.run(&frees);
    let new: Vec<_> = (0..room + 20).map(|_| Operation::new(Kind::Valloc, 0, 10)).collect();
    full.run(&new);
    expected.removed += room;
    expected.inserted += room;
    let calloc = expected.sites.get_mut(&Kind::Calloc).expect("inserted above");
    calloc.freed_blocks += room;
    calloc.freed_bytes += 48 * room;
    let outstanding = expected.outstanding.get_mut(&Kind::Calloc).expect("inserted above");
    outstanding.blocks -= room;
    outstanding.bytes -= 48 * room;
    expected.sites.insert(Kind::Valloc, site(room, 10 * room));
    expected.outstanding.insert(Kind::Valloc, Outstanding { blocks: room, bytes: 10 * room });
    expected.faults.insert("lost: ledger full", 4 * quota + 20);
    expected.faults.insert("lost: bytes", late_bytes + 200);
    assert_eq!(full.totals(), expected, "after freeing some");
}

/// Check the limit of a map whose elements the kernel counts on each CPU.
#[test]
fn large_ledger() {
    keeps_the_old_and_counts_the_lost(1000);
}

/// Check the limit of a map whose elements the kernel counts in one place
/// (up to 64 elements for each CPU).
#[test]
fn small_ledger() {
    keeps_the_old_and_counts_the_lost(60);
}

/// Check that with all threads at it nothing goes uncounted: each allocation
/// is in the ledger or lost, and the limit is exceeded by no more than a
/// block for each CPU.
#[test]
fn threads_at_the_limit() {
    const QUOTA: u64 = 1000;
    const BLOCKS: u64 = 5000;
    let mut full = Full::start(QUOTA as u32);
    let blocks: Vec<_> = (0..BLOCKS)
        .map(|number| Operation::new(Kind::Malloc, number % THREADS, 1 + number))
        .collect();
    full.run(&blocks);
    let counters = full.trace.counters(full.slot);
    let (inserted, lost) = (counters.get(Counter::Inserted), counters.get(Counter::LostLedgerFull));
    assert_eq!(inserted + lost, BLOCKS);
    let cpus = std::thread::available_parallelism().expect("a number of CPUs").get() as u64;
    assert!((QUOTA..=QUOTA + cpus).contains(&inserted), "{inserted} blocks in the ledger");
    let totals = full.totals();
    let kept: u64 = totals.outstanding.values().map(|outstanding| outstanding.bytes).sum();
    assert_eq!(kept + counters.get(Counter::LostBytes), (1..=BLOCKS).sum::<u64>());

    // Everything freed: some known, the others not.
    let frees: Vec<_> = (0..BLOCKS as usize).map(Operation::free).collect();
    full.run(&frees);
    let totals = full.totals();
    assert_eq!((totals.removed, totals.unknown_frees), (inserted, lost));
    assert!(totals.outstanding.is_empty(), "{totals:?}");
}

/// Check that site totals and ledger agree when a resize fails while another
/// thread takes the room that its block had.
#[test]
fn failed_resizes_at_the_limit() {
    const QUOTA: u64 = 200;
    let mut full = Full::start(QUOTA as u32);
    let old: Vec<_> =
        (0..QUOTA).map(|_| Operation { extra: 1, ..Operation::new(Kind::Calloc, 0, 48) }).collect();
    let (mut old, _) = full.run(&old);
    for _ in 0..20 {
        let calls: Vec<_> = (0..2 * QUOTA)
            .map(|number| match number % 2 {
                0 => Operation::new(Kind::Malloc, 1 + number % 3, 10),
                _ => resize(old + number as usize / 2, u64::MAX / 2),
            })
            .collect();
        let (first, _) = full.run(&calls);
        let again: Vec<_> = (0..QUOTA as usize)
            .map(|number| resize(first + 2 * number + 1, u64::MAX / 2))
            .collect();
        (old, _) = full.run(&again);
        let totals = full.totals();
        for (kind, site) in &totals.sites {
            let ledger = totals.outstanding.get(kind).copied().unwrap_or_default();
            assert_eq!(site.allocated_blocks - site.freed_blocks, ledger.blocks, "{totals:?}");
            assert_eq!(site.allocated_bytes - site.freed_bytes, ledger.bytes, "{totals:?}");
        }
        let ledger: u64 = totals.outstanding.values().map(|outstanding| outstanding.blocks).sum();
        assert_eq!(totals.inserted - totals.removed, ledger, "{totals:?}");
    }
}
