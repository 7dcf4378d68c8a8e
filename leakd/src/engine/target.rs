//! One process under trace.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use leakd_common::bad_free::{BadFree, BadFreeKey, FreeChecks};
use leakd_common::event::StackEnd;
use leakd_common::site::Site;
use leakd_common::target::TargetCounters;

use super::code::{Code, MappedCode};
use super::ledger::SlotMaps;
use super::probes::Probes;
use super::rings::Stack;
use super::snapshot::SiteBlocks;
use super::window::Windows;
use crate::elf::FileIdentity;
use crate::process::{ProcessHandle, ProcessInfo};
use crate::symbol::{CodeAddress, Lookup};
use crate::unwind::address_space::WithoutTable;
use crate::unwind::source::NoTable;

/// From when on a target's allocations are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeenFrom {
    /// From the attach on.
    Attach,
    /// From its first instruction on.
    Start,
}

/// What became of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It still runs.
    Running,
    /// It exited or was killed.
    Exited,
}

/// Files without a table that are remembered.
const WITHOUT_TABLE: usize = 256;

/// An announced stack, and the code that each of its frames returns to: what
/// was mapped there at the time.
#[derive(Debug)]
pub(super) struct KnownStack {
    pub stack: Stack,
    pub code: Box<[Option<Arc<MappedCode>>]>,
}

/// One process under trace. Dropping it takes its probes out, but leaves its
/// slot in use: see [`super::Engine::detach`].
#[derive(Debug)]
pub struct Target {
    pub(super) process: ProcessHandle,
    pub(super) info: ProcessInfo,
    pub(super) maps: SlotMaps,
    pub(super) probes: Probes,
    pub(super) code: Code,
    pub(super) attached: HashSet<FileIdentity>,
    pub(super) stacks: HashMap<u64, KnownStack>,
    pub(super) page_fault_stacks: HashMap<u64, Stack>,
    /// Files that have no unwind table, by path, with the reason.
    pub(super) without_table: BTreeMap<String, String>,
    /// Call sites with addresses that no known mapping holds.
    pub(super) unplaced: Vec<u64>,
    pub(super) epoch: u32,
    pub(super) sample_bytes: u64,
    pub(super) adjustable: bool,
    pub(super) windows: Windows,
    pub(super) seen_from: SeenFrom,
    pub(super) free_checks: FreeChecks,
    pub(super) ended: Ended,
    pub(super) execs: u32,
    pub(super) started: SystemTime,
    pub(super) started_at: Instant,
    /// The same by the clock that blocks are stamped with, in nanoseconds.
    pub(super) began_ns: u64,
    pub(super) refreshed: Instant,
    /// Processor time that the last look at its mappings took.
    pub(super) refresh_took: Duration,
    /// There is reason to look at its mappings again.
    pub(super) refresh_due: bool,
    pub(super) stopped_at: Option<Instant>,
}

/// A look at a target: numbers only, names come later.
#[derive(Clone, Debug)]
pub struct TargetLook {
    /// Its counters, those of earlier program images included.
    pub counters: TargetCounters,
    /// How often its program was replaced while it was under trace.
    pub execs: u32,
    /// Its call sites of the current program image.
    pub sites: HashMap<u64, Site>,
    /// Frees that were wrong; `None`: it was not looked for them.
    pub bad_frees: Option<Vec<(BadFreeKey, BadFree)>>,
    /// Their outstanding blocks; `None` if the ledger was not scanned.
    pub blocks: Option<HashMap<u64, SiteBlocks>>,
    /// Blocks younger than this are not among the aged ones.
    pub min_age: Duration,
    /// CLOCK_MONOTONIC when it was taken, or when the target's trace had ended, ns.
    pub now_ns: u64,
    /// Memory of its tables, in bytes.
    pub table_bytes: u64,
}

impl Target {
    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The process, as it was when it was attached to, or after its last exec.
    pub fn info(&self) -> &ProcessInfo {
        &self.info
    }

    /// Its slot.
    pub fn slot(&self) -> u16 {
        self.maps.slot
    }

    /// What is under probe.
    pub fn probes(&self) -> &Probes {
        &self.probes
    }

    /// From when on its allocations are seen.
    pub fn seen_from(&self) -> SeenFrom {
        self.seen_from
    }

    /// What its frees are looked at for.
    pub fn free_checks(&self) -> FreeChecks {
        self.free_checks
    }

    /// What became of it.
    pub fn ended(&self) -> Ended {
        self.ended
    }

    /// How often it replaced its program image while under trace.
    pub fn execs(&self) -> u32 {
        self.execs
    }

    /// Mean bytes between samples; 0: none.
    pub fn sample_bytes(&self) -> u64 {
        self.sample_bytes
    }

    /// The spans of time in which its probes are in.
    pub fn windows(&self) -> &Windows {
        &self.windows
    }

    /// CPU time that it has taken, with that of its probes.
    ///
    /// # Errors
    /// If it has ended.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        let pid = nix::unistd::Pid::from_raw(self.pid() as i32);
        let clock = nix::time::clock_getcpuclockid(pid)?;
        Ok(nix::time::clock_gettime(clock)?.into())
    }

    /// When the trace began.
    pub fn started(&self) -> SystemTime {
        self.started
    }

    /// How long it has been under trace.
    pub fn duration(&self) -> Duration {
        self.stopped_at.unwrap_or_else(Instant::now).duration_since(self.started_at)
    }

    /// When its trace began, CLOCK_MONOTONIC in nanoseconds.
    pub fn began_ns(&self) -> u64 {
        self.began_ns
    }

    /// The stack of a call site, if it has been announced.
    pub fn stack(&self, site: u64) -> Option<&Stack> {
        self.stacks.get(&site).map(|known| &known.stack)
    }

    /// The stack of a call site of page faults, if it has been announced.
    pub fn page_fault_stack(&self, site: u64) -> Option<&Stack> {
        self.page_fault_stacks.get(&site)
    }

    /// What is at each address of a call site's stack, innermost first; empty if
    /// the stack has not been announced.
    pub fn code_addresses(&self, site: u64) -> impl Iterator<Item = CodeAddress> {
        self.stacks.get(&site).into_iter().flat_map(|known| {
            known.stack.addresses().zip(&known.code).map(|((address, lookup), code)| match code {
                Some(code) => code.address(self.pid(), address, lookup),
                None => CodeAddress::Unmapped { address },
            })
        })
    }

    /// Remembers an announced stack; gives false if some of it is not in any
    /// known mapping.
    pub(super) fn remember(&mut self, mut stack: Stack) -> bool {
        if self.code.misled(&stack) || self.code.shares_key(&stack) {
            stack.end = StackEnd::Stale as u32;
        }
        let at = |(address, lookup)| self.code.at(address, lookup, stack.time_ns).cloned();
        let code: Box<[_]> = stack.addresses().map(at).collect();
        let whole = code.iter().all(Option::is_some);
        if !whole {
            self.unplaced.push(stack.site);
        }
        self.stacks.insert(stack.site, KnownStack { stack, code });
        whole
    }

    /// Finds the code of stacks that were announced before their mappings were
    /// known. What is not found now never will be.
    pub(super) fn place_stacks(&mut self) {
        for site in std::mem::take(&mut self.unplaced) {
            let Some(KnownStack { stack, code }) = self.stacks.get_mut(&site) else { continue };
            for ((address, lookup), code) in stack.addresses().zip(code.iter_mut()) {
                if code.is_none() {
                    *code = self.code.at(address, lookup, stack.time_ns).cloned();
                }
            }
        }
    }

    /// Looks at all stacks again, for changes that the walker does not know of, and
    /// for code that has come to where other code was.
    pub(super) fn doubt_stacks(&mut self) {
        let contested_anew = self.code.take_contested_anew();
        if self.code.all_settled() && !contested_anew {
            return;
        }
        let stacks = self.stacks.values_mut().map(|known| &mut known.stack);
        for stack in stacks.chain(self.page_fault_stacks.values_mut()) {
            if self.code.newly_misled(stack) || (contested_anew && self.code.shares_key(stack)) {
                stack.end = StackEnd::Stale as u32;
            }
        }
    }

    /// Takes over for which files there is no table now. Those that have gone
    /// are remembered, for the stacks that end there; those whose table has come
    /// are not.
    pub(super) fn note_without_table(&mut self, without: &[WithoutTable]) {
        let passing = NoTable::BeingMade.to_string();
        self.without_table.retain(|_, why| *why != passing);
        for WithoutTable { begin, why, .. } in without {
            let code = self.code.at(*begin, Lookup::Instruction, u64::MAX);
            let object = code.and_then(|code| code.object.as_ref());
            let path = object.map(|object| object.file.path().display().to_string());
            let module = path.unwrap_or_else(|| "[vdso]".to_owned());
            if self.without_table.len() < WITHOUT_TABLE || self.without_table.contains_key(&module)
            {
                self.without_table.insert(module, why.to_string());
            }
        }
    }

    /// Files that have no unwind table, and why.
    pub fn without_table(&self) -> &BTreeMap<String, String> {
        &self.without_table
    }
}
