//! The kernel's own memory as a target: what it handed out and did not get
//! back, by call site.
//!
//! | file | concern |
//! |---|---|
//! | [`hooks`] | where memory comes and goes, and what of that this kernel shows |
//! | [`object`] | the BPF object |
//! | [`caches`] | slab caches by name |
//! | [`symbols`] | names for the kernel's addresses |
//! | [`lines`], [`layout`] | files and lines, where debug info is at hand |
//! | [`stack`] | a call site's stack, without the allocator's own frames |
//! | [`collect`] | from the maps to what the report is made of |
//! | [`settings`] | what is to be traced |
//! | [`window`] | programs in for a while, and out for a while |
//!
//! It costs every allocation of the machine, so nothing of it is loaded until
//! someone asks.

pub mod caches;
mod collect;
pub mod hooks;
mod layout;
pub mod lines;
pub mod object;
pub mod settings;
pub mod stack;
pub mod symbols;
mod window;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::time::{Duration, Instant, SystemTime};

use aya::maps::{MapData, RingBuf};
use aya::programs::ProgramError;
use leakd_common::kernel::{KernelKind, KernelSite};
use leakd_common::target::TargetCounters;

use crate::btf::{Btf, BtfError};
use crate::engine::plain::read;
use crate::engine::snapshot::for_each;
use crate::engine::window::Windows;
use crate::report::input::{Snapshot, TargetSnapshot};
use crate::report::kernel::UnseenFree;
use hooks::{Hook, Kernel, Way};
use object::KernelObject;
pub use settings::Settings;
use stack::SiteStack;
use symbols::Symbols;

/// Why the kernel's memory cannot be traced.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// aya refused the object, or the kernel did.
    #[error("cannot load the BPF maps and programs for the kernel's memory: {0}")]
    Load(#[from] aya::EbpfError),
    /// A program was refused.
    #[error("the kernel refused the BPF program {program}: {}", why(.source))]
    Program {
        /// The program.
        program: String,
        /// The cause.
        source: ProgramError,
    },
    /// The object and this program do not fit together.
    #[error("the BPF object has no {0}: leakd was built from mixed sources")]
    Missing(String),
    /// The kernel's types.
    #[error("the kernel's types are not known, so nothing of its memory can be traced: {0}")]
    Types(#[from] BtfError),
    /// Nothing that was asked for can be traced.
    #[error("nothing of what was asked for can be traced on this kernel: {0}")]
    Nothing(String),
    /// Something else with the system.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// The kernel under trace. Dropping it takes everything out; so does the
/// kernel, should the process be killed.
pub struct KernelTrace {
    object: KernelObject,
    ring: RingBuf<MapData>,
    stacks: HashMap<u64, SiteStack>,
    symbols: Symbols,
    ways: Vec<Way>,
    unseen_frees: Vec<UnseenFree>,
    settings: Settings,
    started: SystemTime,
    since: Instant,
    windows: Windows,
}

impl fmt::Debug for KernelTrace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &self.settings;
        formatter.debug_struct("KernelTrace").field("settings", settings).finish_non_exhaustive()
    }
}

/// Sums over all call sites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Counters of all CPUs.
    pub counters: TargetCounters,
    /// Outstanding blocks.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl KernelTrace {
    /// Attaches to what the kernel has of the kinds asked for.
    ///
    /// # Errors
    /// If nothing of it can be traced.
    pub fn start(settings: Settings) -> Result<Self, KernelError> {
        let btf = Btf::of_kernel()?;
        let symbols = Symbols::read().unwrap_or_default();
        let kernel = Kernel::running(&btf, &symbols);
        let mut ways = kernel.ways(&settings.kinds);
        let hidden = kernel.hidden_frees(&settings.kinds);
        missing_fields(&btf, &mut ways);
        let mut object = KernelObject::load(&settings, &btf, &symbols)?;
        let ring = object.ring()?;
        let unseen_frees = object.attach(&mut ways, &hidden);
        if ways.iter().all(|way| way.hooks.is_err()) {
            let reasons: Vec<String> = ways
                .iter()
                .filter_map(|way| {
                    Some(format!("{}: {}", hooks::name(way.kind), way.hooks.as_ref().err()?))
                })
                .collect();
            return Err(KernelError::Nothing(reasons.join("; ")));
        }
        // Once more: the programs of this trace are in it by now.
        let symbols = if symbols.is_empty() { symbols } else { Symbols::read()? };
        object.record(true)?;
        Ok(Self {
            object,
            ring,
            stacks: HashMap::new(),
            symbols,
            ways,
            unseen_frees,
            settings,
            started: SystemTime::now(),
            since: Instant::now(),
            windows: Windows::opened(Instant::now()),
        })
    }

    /// How each kind is traced.
    pub fn ways(&self) -> &[Way] {
        &self.ways
    }

    /// Ways to free blocks that are not under probe.
    pub fn unseen_frees(&self) -> &[UnseenFree] {
        &self.unseen_frees
    }

    /// Whether the kernel hides its addresses, so that nothing has a name.
    pub fn is_nameless(&self) -> bool {
        self.symbols.is_empty()
    }

    /// Takes what was announced, and names it at once: a module may go.
    pub fn poll(&mut self) {
        let mut refreshed = false;
        while let Some(record) = self.ring.next() {
            if !refreshed {
                refreshed = true;
                if let Err(error) = self.symbols.refresh() {
                    tracing::warn!("the kernel's symbols: {error}");
                }
            }
            if let Some((site, stack)) = stack::parse(&record, &self.symbols) {
                self.stacks.insert(site, stack);
            }
        }
    }

    /// Sums over all call sites, without looking at single blocks.
    pub fn totals(&self) -> Result<Totals, KernelError> {
        let mut totals = Totals { counters: self.counters()?, ..Totals::default() };
        for_each(self.object.map("SITES")?, |_, value| {
            let site = read::<KernelSite>(value).totals;
            totals.blocks += site.outstanding_blocks();
            totals.bytes += site.outstanding_bytes();
        })?;
        Ok(totals)
    }

    /// How long it has been under trace.
    pub fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    /// What is traced.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The stack of a call site, as far as it was announced.
    pub fn stack(&self, site: u64) -> Option<&SiteStack> {
        self.stacks.get(&site)
    }

    /// For how long the programs ran while statistics were taken, in nanoseconds.
    pub fn program_time_ns(&self) -> Result<u64, KernelError> {
        self.object.program_time_ns()
    }

    /// A look at everything, for the report.
    pub fn snapshot(&mut self, min_age: Duration) -> Result<TargetSnapshot, KernelError> {
        self.poll();
        collect::collect(self, min_age)
    }

    /// Takes the final look and everything out.
    pub fn finish(mut self, min_age: Duration) -> Result<Snapshot, KernelError> {
        self.object.record(false)?;
        let mut target = self.snapshot(min_age)?;
        let (started, ended) = (self.started, SystemTime::now());
        drop(self);
        lines::add(&mut target);
        Ok(Snapshot {
            started,
            ended,
            host: crate::preflight::host(),
            kernel: crate::preflight::release(),
            targets: vec![target],
        })
    }
}

/// Takes away what needs a field that the kernel's types do not have.
fn missing_fields(btf: &Btf, ways: &mut [Way]) {
    for way in ways {
        let (structure, fields): (_, &[_]) = match way.kind {
            KernelKind::Cache => ("kmem_cache", &["name", "size"]),
            KernelKind::Vmalloc
                if way.hooks.as_ref().is_ok_and(|hooks| hooks.iter().any(Hook::reads_area)) =>
            {
                ("vmap_area", &["va_start", "va_end"])
            }
            _ => continue,
        };
        let missing = fields.iter().find(|field| btf.member(structure, field).is_none());
        if let Some(field) = missing {
            way.hooks = Err(format!("the kernel's types have no {structure}.{field}"));
        }
    }
}

/// What the kernel says of a program that it refuses, in one line: the verifier
/// explains itself in the line before its statistics.
fn why(error: &ProgramError) -> String {
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return error.to_string();
    };
    let log = verifier_log.to_string();
    tracing::debug!("{log}");
    const STATISTICS: [&str; 3] = ["processed ", "stack depth ", "verification time "];
    let said =
        |line: &&str| !line.is_empty() && !STATISTICS.iter().any(|start| line.starts_with(start));
    let last = log.lines().rev().map(str::trim).find(said).unwrap_or("no reason given");
    format!("{io_error}: {last}")
}
