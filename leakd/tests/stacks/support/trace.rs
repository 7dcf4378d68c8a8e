//! The engine, as these tests use it.

use std::time::{Duration, Instant};

use leakd::engine::rings::Stack;
use leakd::engine::target::{SeenFrom, Target};
use leakd::engine::{Engine, Settings};
use leakd_common::event::StackEnd;
use leakd_common::site::OVERFLOW_SITE;
use leakd_common::target::{Counter, TargetCounters};
use tokio::runtime::Runtime;

use super::process::PATIENCE;

/// Between two looks at a target's mappings and at what is waited for.
const TICK: Duration = Duration::from_millis(50);
const QUOTA: u32 = 1 << 20;

/// Calls with the same stack.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Key of the call site.
    pub key: u64,
    /// The stack.
    pub stack: Stack,
    /// Calls.
    pub count: u64,
    /// Bytes that they asked for; 0 for page faults.
    pub bytes: u64,
}

impl Seen {
    /// Why the walk stopped.
    pub fn end(&self) -> StackEnd {
        StackEnd::from_number(self.stack.end).expect("a known reason")
    }
}

/// All calls of a target.
#[derive(Clone, Debug, Default)]
pub struct Looked {
    /// Those whose stacks are known.
    pub seen: Vec<Seen>,
    /// Those whose stacks are not: whenever they came, the ring was full.
    pub unknown: u64,
}

/// Other tests, and the programs under trace, take the processors: this thread, and
/// those that it starts, are to read the rings before they are full.
fn read_before_others() {
    // SAFETY: a plain system call; on Linux it is for the calling thread.
    let status = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -10) };
    assert_eq!(status, 0, "root may: {}", std::io::Error::last_os_error());
}

/// An engine and the runtime that drains its rings.
#[derive(Debug)]
pub struct Trace {
    // Dropped in order: the engine needs the runtime.
    engine: Engine,
    runtime: Runtime,
}

impl Trace {
    /// Loads the programs.
    ///
    /// # Panics
    /// Without root: the kernel then lets nobody load them.
    pub fn start() -> Self {
        Self::with(Settings::default())
    }

    /// The same with other settings.
    pub fn with(settings: Settings) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests load BPF programs into the kernel: run them as root"
        );
        read_before_others();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a tokio runtime");
        let entered = runtime.enter();
        let settings = Settings { quota: QUOTA, ..settings };
        let engine = Engine::start(settings).unwrap_or_else(|error| panic!("{error}"));
        drop(entered);
        Self { engine, runtime }
    }

    /// Counts page faults, too.
    pub fn watch_page_faults(&mut self) {
        self.engine.watch_page_faults().unwrap_or_else(|error| panic!("{error}"));
    }

    /// Puts a process under trace.
    pub fn attach(&mut self, pid: u32) -> u16 {
        self.engine.attach(pid, SeenFrom::Attach).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Takes its probes out, and forgets it.
    pub fn detach(&mut self, slot: u16) {
        self.engine.detach(slot);
    }

    /// The target in a slot.
    pub fn target(&self, slot: u16) -> &Target {
        self.engine.target(slot).expect("the slot is in use")
    }

    /// Handles what the probes announce until something has happened.
    pub fn pump_until(&mut self, what: &str, mut happened: impl FnMut() -> bool) {
        let begin = Instant::now();
        let mut ticked = Instant::now();
        while !happened() {
            self.handle_next();
            if ticked.elapsed() >= TICK {
                self.engine.tick();
                ticked = Instant::now();
            }
            assert!(begin.elapsed() < PATIENCE, "waited in vain for {what}");
        }
    }

    fn handle_next(&mut self) {
        let next = self.runtime.block_on(async {
            tokio::time::timeout(TICK, self.engine.next()).await.unwrap_or(None)
        });
        if let Some(announcement) = next {
            self.engine.handle(announcement);
            self.handle_waiting();
        }
    }

    /// Handles what has been announced by now.
    fn handle_waiting(&mut self) {
        while let Some(announcement) = self.engine.try_next() {
            self.engine.handle(announcement);
        }
    }

    /// Looks at a target's mappings, and handles what has been announced by now.
    pub fn refresh(&mut self, slot: u16) {
        let _entered = self.runtime.enter();
        self.engine.refresh(slot).unwrap_or_else(|error| panic!("{error}"));
        self.handle_waiting();
    }

    /// A target's counters.
    pub fn counters(&self, slot: u16) -> TargetCounters {
        self.engine.counters(self.target(slot)).unwrap_or_else(|error| panic!("counters: {error}"))
    }

    /// Every allocation, by call site. Nothing may have been lost.
    pub fn allocations(&mut self, slot: u16) -> Looked {
        let counters = self.counters(slot);
        for counter in [
            Counter::SampledOut,
            Counter::LostLedgerFull,
            Counter::LostNoMemory,
            Counter::LostThread,
            Counter::LostUnpaired,
            Counter::SitesFull,
        ] {
            assert_eq!(counters.get(counter), 0, "{counter:?}");
        }
        let look = self.engine.look(self.target(slot), None);
        let sites = look.unwrap_or_else(|error| panic!("reading the sites: {error}")).sites;
        let mut looked = Looked::default();
        for (key, site) in sites {
            if key == OVERFLOW_SITE || site.allocated_blocks == 0 {
                continue;
            }
            if site.announced == 0 {
                looked.unknown += site.allocated_blocks;
                continue;
            }
            let stack = self.wait_for(|trace| trace.target(slot).stack(key).cloned());
            let (count, bytes) = (site.allocated_blocks, site.allocated_bytes);
            looked.seen.push(Seen { key, stack, count, bytes });
        }
        looked
    }

    /// Every page fault, by call site.
    pub fn page_faults(&mut self, slot: u16) -> Looked {
        assert_eq!(self.counters(slot).get(Counter::LostPageFaults), 0);
        let sites = self.engine.page_faults(slot);
        let sites = sites.unwrap_or_else(|error| panic!("reading the page faults: {error}"));
        let mut looked = Looked::default();
        for (key, site) in sites {
            if site.announced == 0 {
                looked.unknown += site.faults;
                continue;
            }
            let stack = self.wait_for(|trace| trace.target(slot).page_fault_stack(key).cloned());
            looked.seen.push(Seen { key, stack, count: site.faults, bytes: 0 });
        }
        looked
    }

    /// Call sites of page faults that are counted for a slot, in use or not.
    pub fn page_fault_sites(&self, slot: u16) -> usize {
        self.engine.page_faults(slot).map_or_else(|error| panic!("{error}"), |sites| sites.len())
    }

    /// Handles what the probes announce until there is something to see.
    pub fn wait_for<T>(&mut self, look: impl Fn(&Self) -> Option<T>) -> T {
        let begin = Instant::now();
        loop {
            if let Some(value) = look(self) {
                return value;
            }
            self.handle_next();
            assert!(begin.elapsed() < PATIENCE, "what was waited for does not come");
        }
    }
}
