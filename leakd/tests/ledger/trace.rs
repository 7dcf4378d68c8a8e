//! The engine, as the tests use it.

use std::collections::BTreeMap;
use std::time::Duration;

use leakd::engine::target::{SeenFrom, Target, TargetLook};
use leakd::engine::{Engine, Settings};
use leakd_common::target::{Counter, TargetCounters};
use tokio::runtime::Runtime;

use super::driver::Driver;
use super::model::Totals;

/// Counters that stay 0 as long as nothing is lost.
const FAULTS: [(Counter, &str); 8] = [
    (Counter::SampledOut, "sampled out"),
    (Counter::LostLedgerFull, "lost: ledger full"),
    (Counter::LostNoMemory, "lost: no memory"),
    (Counter::LostThread, "lost: no room for the thread"),
    (Counter::LostUnpaired, "lost: unpaired"),
    (Counter::LostBytes, "lost: bytes"),
    (Counter::SitesFull, "site table full"),
    (Counter::DoubleFrees, "double frees"),
];

/// An engine and the runtime that drains its rings.
#[derive(Debug)]
pub struct Trace {
    // Dropped in order: the engine needs the runtime.
    engine: Engine,
    runtime: Runtime,
}

/// Blocks that the tests' processes have outstanding at most, unless a test
/// says otherwise: small tables are read fast.
pub const QUOTA: u32 = 64 << 10;

impl Trace {
    /// Loads the programs.
    ///
    /// # Panics
    /// Without root: the kernel then lets nobody load them.
    pub fn start(settings: Settings) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests load BPF programs into the kernel: run them as root"
        );
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a tokio runtime");
        let entered = runtime.enter();
        let engine = Engine::start(settings).unwrap_or_else(|error| panic!("{error}"));
        drop(entered);
        Self { engine, runtime }
    }

    /// The engine itself.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Puts a process under trace.
    pub fn attach(&mut self, pid: u32) -> u16 {
        self.engine.attach(pid, SeenFrom::Attach).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Forgets it.
    pub fn detach(&mut self, slot: u16) {
        self.engine.detach(slot);
    }

    /// The target in a slot.
    pub fn target(&self, slot: u16) -> &Target {
        self.engine.target(slot).expect("the slot is in use")
    }

    /// A target's counters.
    pub fn counters(&self, slot: u16) -> TargetCounters {
        self.engine.counters(self.target(slot)).unwrap_or_else(|error| panic!("counters: {error}"))
    }

    /// Reads everything, once every stack is known.
    pub fn look(&mut self, slot: u16) -> TargetLook {
        let look = self
            .engine
            .look(self.target(slot), Some(Duration::ZERO))
            .unwrap_or_else(|error| panic!("reading the ledger: {error}"));
        for (key, site) in &look.sites {
            // The overflow site has no stack; faults tell that it is in use.
            while site.announced != 0
                && site.allocated_blocks != 0
                && *key != leakd_common::site::OVERFLOW_SITE
                && self.target(slot).stack(*key).is_none()
            {
                let announcement =
                    self.runtime.block_on(self.engine.next()).expect("the rings are drained");
                self.engine.handle(announcement);
            }
        }
        look
    }

    /// What the ledger says of a driver, since the attach.
    pub fn totals(&mut self, slot: u16, driver: &Driver) -> Totals {
        let look = self.look(slot);
        let target = self.target(slot);
        let kind = |site: u64| driver.kind(target.stack(site).map_or(&[], |stack| &stack.frames));
        let mut totals = Totals {
            inserted: look.counters.get(Counter::Inserted),
            removed: look.counters.get(Counter::Removed),
            failed: look.counters.get(Counter::Failed),
            unknown_frees: look.counters.get(Counter::UnknownFrees),
            sites: BTreeMap::new(),
            outstanding: BTreeMap::new(),
            faults: faults(&look.counters),
        };
        for (key, site) in &look.sites {
            if site.allocated_blocks == 0 {
                continue;
            }
            let sum = totals.sites.entry(kind(*key)).or_default();
            sum.allocated_blocks += site.allocated_blocks;
            sum.allocated_bytes += site.allocated_bytes;
            sum.freed_blocks += site.freed_blocks;
            sum.freed_bytes += site.freed_bytes;
            let lifetimes: u64 = site.lifetimes.iter().sum();
            assert_eq!(lifetimes, site.freed_blocks, "the histogram has other frees");
        }
        for (key, blocks) in look.blocks.iter().flatten() {
            let sum = totals.outstanding.entry(kind(*key)).or_default();
            sum.blocks += blocks.aged_blocks;
            sum.bytes += blocks.aged_bytes;
        }
        totals
    }
}

/// The counters that should be 0 and are not.
pub fn faults(counters: &TargetCounters) -> BTreeMap<&'static str, u64> {
    FAULTS
        .iter()
        .map(|(counter, name)| (*name, counters.get(*counter)))
        .filter(|(_, count)| *count != 0)
        .collect()
}
