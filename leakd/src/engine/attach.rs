//! How a target comes and goes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant, SystemTime};

use leakd_common::bad_free::FreeChecks;

use super::bad_frees::BadFrees;
use super::code::Code;
use super::probes::Probes;
use super::target::{Ended, SeenFrom, Target};
use super::window::Windows;
use super::{Engine, EngineError, sampling, system};
use crate::bpf::link;
use crate::process::{ProcessHandle, mappings, runs_under_valgrind};

/// Blocks of the canary that there is room for: it holds some tens at once, and
/// the buckets of a large table take time to make and to give back.
const CANARY_BLOCKS: u32 = 1 << 12;

/// Which blocks are recorded.
#[derive(Clone, Copy, Debug)]
struct Sampling {
    /// Mean bytes between samples; 0: all are.
    bytes: u64,
    /// It may change while probes are in. The weights are consulted even where
    /// all are 1.
    adjustable: bool,
}

impl Engine {
    /// Puts a process under trace; gives its slot.
    ///
    /// With [`SeenFrom::Start`], a process that has no allocator yet is taken
    /// all the same: its dynamic loader has not come to it.
    pub fn attach(&mut self, pid: u32, seen_from: SeenFrom) -> Result<u16, EngineError> {
        let sampling = Sampling { bytes: self.settings.sample_bytes, adjustable: false };
        self.attach_as(pid, seen_from, sampling, true)
    }

    /// The same, with sampling that can be changed while it goes on: see
    /// [`Engine::set_sample_bytes`].
    pub fn attach_adjustable(&mut self, pid: u32, bytes: u64) -> Result<u16, EngineError> {
        self.attach_as(pid, SeenFrom::Attach, Sampling { bytes, adjustable: true }, true)
    }

    /// Puts the canary under trace: every allocation is recorded, and functions
    /// that the user named are not asked for, whatever the settings say.
    pub fn attach_canary(&mut self, pid: u32) -> Result<u16, EngineError> {
        self.attach_as(pid, SeenFrom::Attach, Sampling { bytes: 0, adjustable: true }, false)
    }

    fn attach_as(
        &mut self,
        pid: u32,
        seen_from: SeenFrom,
        sampling: Sampling,
        with_custom: bool,
    ) -> Result<u16, EngineError> {
        if self.targets.values().any(|target| target.pid() == pid && target.ended == Ended::Running)
        {
            return Err(EngineError::Twice(pid));
        }
        let process = ProcessHandle::open(pid)?;
        let mapped = mappings(pid)?;
        if runs_under_valgrind(&mapped) {
            return Err(EngineError::Valgrind(pid));
        }
        let quota = if with_custom { self.settings.quota } else { CANARY_BLOCKS };
        let maps = self.ledger.open(pid, quota).map_err(system("tables for the target"))?;
        let slot = maps.slot;
        let info = process.info().clone();
        let free_checks = match self.settings.check_frees && sampling.bytes == 0 {
            true => BadFrees::checks(seen_from),
            false => FreeChecks::Off,
        };
        let now = Instant::now();
        let began_ns = super::snapshot::now_ns().map_err(system("the clock"))?;
        let target = Target {
            process,
            info,
            maps,
            probes: Probes::default(),
            code: Code::default(),
            attached: HashSet::new(),
            stacks: HashMap::new(),
            page_fault_stacks: HashMap::new(),
            unplaced: Vec::new(),
            without_table: BTreeMap::new(),
            epoch: 0,
            sample_bytes: sampling.bytes,
            adjustable: sampling.adjustable,
            windows: Windows::opened(now),
            seen_from,
            free_checks,
            ended: Ended::Running,
            execs: 0,
            started: SystemTime::now(),
            started_at: now,
            began_ns,
            refreshed: now,
            refresh_took: Duration::ZERO,
            refresh_due: false,
            stopped_at: None,
        };
        self.targets.insert(slot, target);
        self.start_watch();
        match self.set_up(slot, seen_from, sampling, with_custom) {
            Ok(()) => Ok(slot),
            Err(error) => {
                self.detach(slot);
                Err(error)
            }
        }
    }

    fn set_up(
        &mut self,
        slot: u16,
        seen_from: SeenFrom,
        sampling: Sampling,
        with_custom: bool,
    ) -> Result<(), EngineError> {
        if sampling.bytes > 0 || sampling.adjustable {
            let weights = sampling::weights(sampling.bytes);
            self.ledger.set_sampling(slot, Some(&weights)).map_err(system("sampling"))?;
        }
        let checks = self.targets.get(&slot).map_or(FreeChecks::Off, Target::free_checks);
        if checks != FreeChecks::Off {
            self.ledger.set_free_checks(slot, checks).map_err(system("checks of frees"))?;
        }
        self.refresh_waiting(slot)?;
        let Some(target) = self.targets.get(&slot) else { return Ok(()) };
        if seen_from == SeenFrom::Start {
            return Ok(());
        }
        let pid = target.pid();
        let is_probed = |name: &str| {
            let mut functions = target.probes.functions().iter();
            functions.any(|function| function.symbol == name)
        };
        let mut wanted = self.objects.custom().iter().filter(|_| with_custom);
        if let Some(missing) = wanted.find(|function| !is_probed(&function.symbol)) {
            return Err(EngineError::NoFunction { pid, symbol: missing.symbol.clone() });
        }
        if target.probes.is_empty() {
            return Err(EngineError::NoAllocator {
                pid,
                comm: target.info.comm.clone(),
                why: no_allocator(target),
            });
        }
        Ok(())
    }

    /// Takes the probes out of all targets, side by side, and keeps what was
    /// learned.
    pub fn stop_probes(&mut self) {
        let targets = self.targets.values_mut();
        link::close_all(targets.flat_map(|target| target.probes.take_links()));
        for target in self.targets.values_mut() {
            target.windows.close();
            target.stopped_at.get_or_insert_with(Instant::now);
        }
    }

    /// Takes a target's probes out, and forgets it.
    pub fn detach(&mut self, slot: u16) {
        if let Some(mut target) = self.targets.remove(&slot) {
            target.probes.detach();
            self.stacks.forget(target.pid());
            self.forget_page_faults(slot, None);
            if let Some(bad_frees) = &self.bad_frees {
                bad_frees.forget(slot);
            }
            if let Err(error) = self.ledger.close(&target.maps) {
                tracing::warn!("closing the tables of process {}: {error}", target.pid());
            }
        }
        if self.targets.is_empty() {
            self.watch = None;
        }
    }
}

/// What was looked at in vain.
fn no_allocator(target: &Target) -> String {
    let mut objects = 0;
    let mut unreadable = None;
    for object in target.code.current().filter_map(|code| code.object.as_ref()) {
        objects += 1;
        if let Some(error) = &object.error {
            let path =
                crate::terminal::safe(&object.file.path().display().to_string()).into_owned();
            unreadable = Some(format!("{path} cannot be read ({error})"));
        }
    }
    unreadable.unwrap_or_else(|| {
        format!("{objects} mapped files, none with malloc and free in its symbols (stripped?)")
    })
}
