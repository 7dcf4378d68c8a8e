//! Load, attach, drain, snapshot.
//!
//! | file | concern |
//! |---|---|
//! | [`ledger`] | the slots and their maps |
//! | [`rings`] | what the probes announce |
//! | [`code`], [`changes`] | what a target has mapped, and when that changed |
//! | [`watch`] | who maps code, as the kernel tells it |
//! | [`objects`] | the files that code is mapped from |
//! | [`probes`] | the links of a target |
//! | [`target`] | one process under trace |
//! | [`attach`] | how a target comes and goes |
//! | [`follow`] | what changes while it is there: mappings, exec, fork, exit |
//! | [`stacks`] | what the walker knows of their code |
//! | [`snapshot`] | call sites and block ages |
//! | [`page_faults`] | call sites of page faults |
//! | [`bad_frees`] | blocks that were freed twice |
//! | [`window`] | more or less of a target while it is under trace |
//! | [`scan`] | what a scan reads of a target |
//! | [`resident`] | what the parts of resident memory are found from |
//! | [`sampling`] | which blocks to keep when not all can be |

pub mod attach;
pub mod bad_frees;
pub mod changes;
pub mod code;
mod contested;
pub mod follow;
pub mod ledger;
pub mod objects;
mod own_probe;
pub mod page_faults;
pub(crate) mod plain;
pub mod probes;
pub mod resident;
pub mod rings;
pub mod sampling;
pub mod scan;
pub mod snapshot;
pub mod stacks;
pub mod target;
pub mod watch;
pub mod window;

pub(crate) use own_probe::OwnProbe;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use leakd_common::site::OVERFLOW_SITE;
use leakd_common::target::{Counter, DEFAULT_BLOCKS};
use tokio::sync::{Notify, mpsc};
use tokio::time::Interval;

use crate::allocator::CustomFunction;
use crate::bpf::features::{self, Needs, ProbeMethod, UprobePrograms};
use crate::bpf::object::{BpfObject, ObjectError};
use crate::bpf::program::ProgramError;
use crate::bpf::program_info;
use crate::process::ProcessError;
use bad_frees::BadFrees;
use ledger::Ledger;
use objects::CodeObjects;
use rings::{Announcement, Rings};
use stacks::Stacks;
use target::{Target, TargetLook};
use watch::Watch;

/// What the engine is to do, for all targets.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Functions of the user's own.
    pub custom: Vec<CustomFunction>,
    /// Mean bytes between samples; 0: every allocation is recorded.
    pub sample_bytes: u64,
    /// Outstanding blocks that a target may have in the ledger.
    pub quota: u32,
    /// Look for blocks that are freed twice: the stack of each free is walked.
    pub check_frees: bool,
    /// Tell of the processes that targets make.
    pub follow_forks: bool,
    /// Do without the probe methods better than this (for tests).
    pub method_limit: Option<ProbeMethod>,
    /// How long an attach waits for unwind tables that have to be made. Stacks
    /// through files whose tables come later end there until then.
    pub tables_wait: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            custom: Vec::new(),
            sample_bytes: 0,
            quota: DEFAULT_BLOCKS,
            check_frees: false,
            follow_forks: false,
            method_limit: None,
            tables_wait: Duration::from_secs(10),
        }
    }
}

/// Why the engine cannot start, or a process not be traced. Each is one line
/// that says what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The kernel, or the rights to use it.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A BPF program.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// There is nothing to probe.
    #[error(
        "process {pid} ({comm}) maps no allocator that can be recognized: {why}; \
         name its functions with --alloc and --free"
    )]
    NoAllocator {
        /// The process.
        pid: u32,
        /// Its name.
        comm: String,
        /// What was looked at.
        why: String,
    },
    /// A function that the user named is not there.
    #[error("no file that process {pid} has mapped has a function {symbol} in its symbol table")]
    NoFunction {
        /// The process.
        pid: u32,
        /// The function.
        symbol: String,
    },
    /// It is under trace already.
    #[error("process {0} is under trace already")]
    Twice(u32),
    /// It would see nothing.
    #[error("process {0} runs under valgrind, which leaves no code to probe: ask valgrind")]
    Valgrind(u32),
    /// The kernel refused a probe.
    #[error("cannot set probes in {module} of process {pid}: {source}")]
    Probe {
        /// The process.
        pid: u32,
        /// The file.
        module: String,
        /// The cause.
        source: io::Error,
    },
    /// Something else with the system.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// The cause.
        source: io::Error,
    },
}

/// Makes an error of a system call that names what was tried.
pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> EngineError {
    let what = what.into();
    move |source| EngineError::System { what, source }
}

/// The tracing engine. Dropping it takes every probe out; so does the kernel,
/// should the process be killed: all that it makes hangs on its descriptors.
#[derive(Debug)]
pub struct Engine {
    // Fields are dropped in order: links before maps.
    targets: BTreeMap<u16, Target>,
    programs: UprobePrograms,
    ledger: Ledger,
    stacks: Stacks,
    rings: Rings,
    announcements: mpsc::Receiver<Announcement>,
    /// While there are targets, where the kernel permits it.
    watch: Option<Watch>,
    /// Up to when (CLOCK_MONOTONIC, ns) it was drained.
    drained_ns: u64,
    /// When it is drained.
    drain: Interval,
    /// Told when unwind tables have been made.
    made: Arc<Notify>,
    objects: CodeObjects,
    settings: Settings,
    page_faults: Option<OwnedFd>,
    /// Where frees are looked at.
    bad_frees: Option<BadFrees>,
    object: BpfObject,
}

impl Engine {
    /// Loads the programs. Within a tokio runtime only.
    pub fn start(settings: Settings) -> Result<Self, EngineError> {
        let Settings { check_frees, follow_forks, .. } = settings;
        let object = features::load_object(Needs { check_frees, follow_forks })?;
        let programs = UprobePrograms::load(&object, settings.method_limit, settings.check_frees)?;
        let bad_frees = settings.check_frees.then(|| BadFrees::new(&object)).transpose()?;
        let ledger = Ledger::new(&object)?;
        let stacks = Stacks::new(&object)?;
        let (rings, announcements) = Rings::start(&object).map_err(system("ring buffers"))?;
        Ok(Self {
            targets: BTreeMap::new(),
            programs,
            ledger,
            made: stacks.made(),
            stacks,
            rings,
            announcements,
            watch: None,
            drained_ns: 0,
            drain: follow::drain_interval(),
            objects: CodeObjects::new(settings.custom.clone()),
            settings,
            page_faults: None,
            bad_frees,
            object,
        })
    }

    /// How probes are attached.
    pub fn method(&self) -> ProbeMethod {
        self.programs.method
    }

    /// The targets, by slot.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.targets.values()
    }

    /// One target.
    pub fn target(&self, slot: u16) -> Option<&Target> {
        self.targets.get(&slot)
    }

    /// Reads a target's numbers; with `min_age`, its ledger too, which takes a
    /// second for some millions of blocks.
    pub fn look(&self, target: &Target, min_age: Option<Duration>) -> io::Result<TargetLook> {
        // What has ended grows no older.
        let ended_ago = target.stopped_at.map_or(Duration::ZERO, |ended| ended.elapsed());
        let now_ns = snapshot::now_ns()?.saturating_sub(ended_ago.as_nanos() as u64);
        let mut blocks = match min_age {
            Some(age) => {
                let newest = now_ns.saturating_sub(age.as_nanos() as u64);
                Some(snapshot::blocks(target.maps.blocks.as_fd(), newest)?)
            }
            None => None,
        };
        let mut sites = snapshot::sites(target.maps.sites.as_fd())?;
        // The program may have been replaced without our knowing it yet.
        let epoch = self.ledger.config(target.slot())?.epoch;
        sites.retain(|site, totals| totals.epoch == epoch || *site == OVERFLOW_SITE);
        if let Some(blocks) = &mut blocks {
            blocks.retain(|site, _| sites.contains_key(site));
        }
        Ok(TargetLook {
            counters: self.ledger.counters(target.slot())?,
            execs: target.execs.saturating_add(epoch.wrapping_sub(target.epoch)),
            sites,
            blocks,
            min_age: min_age.unwrap_or_default(),
            bad_frees: self.bad_frees(target)?,
            now_ns,
            table_bytes: self.table_bytes(target)?,
        })
    }

    /// Only the counters of a target: cheap.
    pub fn counters(&self, target: &Target) -> io::Result<leakd_common::target::TargetCounters> {
        self.ledger.counters(target.slot())
    }

    /// For how long the programs at the probes ran while statistics were taken
    /// (see [`program_info::take_statistics`]), in nanoseconds.
    pub fn program_time_ns(&self) -> io::Result<u64> {
        let programs = &self.programs;
        let all = [&programs.allocate, &programs.free].into_iter();
        all.chain(&programs.allocate_return)
            .map(|program| program_info::run_time_ns(program.fd()))
            .sum()
    }

    /// Memory of a target's tables in the kernel, in bytes: what the kernel
    /// accounts for its maps, or what their elements take, whichever is more.
    fn table_bytes(&self, target: &Target) -> io::Result<u64> {
        /// Kernel memory of one block with its hash element (kmalloc-96).
        const BLOCK_BYTES: u64 = 96;
        let maps = ledger::map_memory(target.maps.blocks.as_fd())?
            + ledger::map_memory(target.maps.sites.as_fd())?;
        let counters = self.ledger.counters(target.slot())?;
        let outstanding =
            counters.get(Counter::Inserted).saturating_sub(counters.get(Counter::Removed));
        Ok(maps.max(outstanding * BLOCK_BYTES) + self.rings.bytes() + self.stacks.bytes())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop_probes();
        self.object.detach_tracepoints();
    }
}
