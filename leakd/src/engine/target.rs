//! One process under trace.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use leakd_common::site::Site;
use leakd_common::target::TargetCounters;

use super::ledger::SlotMaps;
use super::objects::CodeObject;
use super::probes::Probes;
use super::rings::Stack;
use super::snapshot::SiteBlocks;
use super::window::Windows;
use crate::process::{ExecutableMapping, FileIdentity, MappingKind, ProcessHandle, ProcessInfo};
use crate::symbol::{CodeAddress, Lookup};

/// Mappings that a target may map code from and still be followed.
const MAPPINGS_LIMIT: usize = 16 << 10;

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

/// A mapping of a target, with the file behind it.
#[derive(Clone, Debug)]
pub(super) struct MappedCode {
    pub mapping: ExecutableMapping,
    pub object: Option<Arc<CodeObject>>,
    /// Mapped no more; kept for the names of addresses seen before.
    pub gone: bool,
}

/// One process under trace. Dropping it takes its probes out, but leaves its
/// slot in use: see [`super::Engine::detach`].
#[derive(Debug)]
pub struct Target {
    pub(super) process: ProcessHandle,
    pub(super) info: ProcessInfo,
    pub(super) maps: SlotMaps,
    pub(super) probes: Probes,
    pub(super) code: Vec<MappedCode>,
    /// The mappings as they were last read.
    pub(super) mappings: Vec<ExecutableMapping>,
    pub(super) attached: HashSet<FileIdentity>,
    pub(super) stacks: HashMap<u64, Stack>,
    pub(super) page_fault_stacks: HashMap<u64, Stack>,
    pub(super) epoch: u32,
    pub(super) sample_bytes: u64,
    pub(super) adjustable: bool,
    pub(super) windows: Windows,
    pub(super) seen_from: SeenFrom,
    pub(super) ended: Ended,
    pub(super) execs: u32,
    pub(super) started: SystemTime,
    pub(super) started_at: Instant,
    pub(super) refreshed: Instant,
    pub(super) stopped_at: Option<Instant>,
}

/// A look at a target: numbers only, names come later.
#[derive(Clone, Debug)]
pub struct TargetLook {
    /// Its counters.
    pub counters: TargetCounters,
    /// Its call sites of the current program image.
    pub sites: HashMap<u64, Site>,
    /// Their outstanding blocks; `None` if the ledger was not scanned.
    pub blocks: Option<HashMap<u64, SiteBlocks>>,
    /// CLOCK_MONOTONIC when it was taken, ns.
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

    /// The stack of a call site, if it has been announced.
    pub fn stack(&self, site: u64) -> Option<&Stack> {
        self.stacks.get(&site)
    }

    /// The stack of a call site of page faults, if it has been announced.
    pub fn page_fault_stack(&self, site: u64) -> Option<&Stack> {
        self.page_fault_stacks.get(&site)
    }

    /// What is at an address of the process.
    pub fn code_address(&self, address: u64, lookup: Lookup) -> CodeAddress {
        let index = self.code.partition_point(|code| code.mapping.begin <= address);
        let found = index.checked_sub(1).and_then(|index| self.code.get(index));
        let Some(code) = found.filter(|code| address <= code.mapping.end) else {
            return CodeAddress::Unmapped { address };
        };
        match (&code.mapping.kind, &code.object) {
            (MappingKind::File { .. }, Some(object)) => CodeAddress::File {
                object: Arc::clone(&object.file),
                offset: address - code.mapping.begin + code.mapping.offset,
                address,
                lookup,
            },
            (MappingKind::Anonymous, _) => CodeAddress::Jit { pid: self.pid(), address, lookup },
            _ => CodeAddress::Unmapped { address },
        }
    }

    /// What is mapped now, without what has gone.
    pub(super) fn current_code(&self) -> impl Iterator<Item = &MappedCode> {
        self.code.iter().filter(|code| !code.gone)
    }

    /// Remembers an announced stack.
    pub(super) fn remember(&mut self, stack: Stack) {
        if stack.epoch == self.epoch {
            self.stacks.insert(stack.site, stack);
        }
    }

    /// Takes over a new list of mappings; objects that are still mapped are
    /// not opened again. Objects that have gone stay known by the addresses
    /// that they had, unless others have taken these.
    pub(super) fn set_code(
        &mut self,
        mappings: Vec<ExecutableMapping>,
        mut open: impl FnMut(&ExecutableMapping) -> io::Result<Arc<CodeObject>>,
    ) -> bool {
        if self.mappings == mappings {
            return false;
        }
        self.mappings = mappings.clone();
        let mut known: HashMap<ExecutableMapping, MappedCode> =
            self.code.drain(..).map(|code| (code.mapping.clone(), code)).collect();
        let mut fresh: Vec<MappedCode> = Vec::with_capacity(mappings.len());
        for mapping in mappings.into_iter().take(MAPPINGS_LIMIT) {
            let code = known.remove(&mapping).unwrap_or_else(|| {
                let object = match mapping.kind {
                    MappingKind::File { .. } => open(&mapping).ok(),
                    _ => None,
                };
                MappedCode { mapping, object, gone: false }
            });
            fresh.push(MappedCode { gone: false, ..code });
        }
        for (_, gone) in known {
            let overlaps = fresh.iter().any(|code| {
                code.mapping.begin < gone.mapping.end && gone.mapping.begin < code.mapping.end
            });
            if !overlaps && fresh.len() < MAPPINGS_LIMIT {
                fresh.push(MappedCode { gone: true, ..gone });
            }
        }
        fresh.sort_by_key(|code| code.mapping.begin);
        self.code = fresh;
        true
    }
}
