//! What changes while a target is under trace: its mappings, its program
//! image, its children, its end.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leakd_common::event::StackEnd;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::objects::CodeObject;
use super::rings::{Announcement, Flush, Stack};
use super::target::{Ended, Target};
use super::watch::Watch;
use super::{Engine, EngineError, snapshot};
use crate::process::{ExecutableMapping, ProcessError, mappings};
use crate::thread_time::thread_time;
use crate::unwind::address_space::WithoutTable;
use crate::unwind::source::NoTable;

/// Mappings are read again this often without a reason ...
const REFRESH: Duration = Duration::from_millis(500);
/// ... and no more often than this with one ...
const REFRESH_AT_MOST: Duration = Duration::from_millis(20);
/// ... nor more often than so many times what it took of processor time, for a
/// process that makes code all the time.
const REFRESH_SHARE: u32 = 10;
/// How often the kernel is asked who has mapped code.
const DRAIN: Duration = Duration::from_millis(20);

/// What the caller may want to act upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A call site was seen for the first time.
    NewSite {
        /// The target.
        slot: u16,
        /// The site's key.
        site: u64,
    },
    /// A target made a process (or a thread).
    Forked {
        /// The target.
        slot: u16,
        /// The new process or thread.
        child: u32,
    },
    /// A target replaced its program image.
    Execed {
        /// The target.
        slot: u16,
    },
}

impl Engine {
    /// Waits for the next announcement of the probes, and meanwhile keeps the
    /// targets' mappings true. Cancel-safe.
    pub async fn next(&mut self) -> Option<Announcement> {
        loop {
            tokio::select! {
                announcement = self.announcements.recv() => return announcement,
                _ = self.drain.tick() => self.follow_mappings(),
                () = self.made.notified() => self.take_tables(),
            }
        }
    }

    /// An announcement that is there already.
    pub fn try_next(&mut self) -> Option<Announcement> {
        self.announcements.try_recv().ok()
    }

    /// Has all passed on that the probes have announced by now.
    pub fn flush(&self) -> Flush {
        self.rings.flush()
    }

    /// Acts on an announcement.
    pub fn handle(&mut self, announcement: Announcement) -> Option<Event> {
        match announcement {
            Announcement::Stack(stack) => {
                let (slot, site) = (stack.slot, stack.site);
                self.catch_up_with(&stack);
                let target = self.targets.get_mut(&slot)?;
                if stack.epoch == target.epoch {
                    let lost_its_way = stack.end == StackEnd::NoMapping as u32;
                    let placed = target.remember(stack);
                    target.refresh_due |= lost_its_way || !placed;
                    self.refresh_if_due(slot);
                }
                Some(Event::NewSite { slot, site })
            }
            Announcement::PageFaultStack(mut stack) => {
                let (slot, lost_its_way) = (stack.slot, stack.end == StackEnd::NoMapping as u32);
                self.catch_up_with(&stack);
                let target = self.targets.get_mut(&slot)?;
                if stack.epoch == target.epoch {
                    if target.code.misled(&stack) || target.code.shares_key(&stack) {
                        stack.end = StackEnd::Stale as u32;
                    }
                    target.page_fault_stacks.insert(stack.site, stack);
                }
                target.refresh_due |= lost_its_way;
                self.refresh_if_due(slot);
                None
            }
            Announcement::Fork { slot, child } => Some(Event::Forked { slot, child }),
            Announcement::Exec { slot } => {
                self.catch_up(slot);
                Some(Event::Execed { slot })
            }
        }
    }

    /// To be called a few times a second: finds out which targets have ended
    /// and which mapped new code.
    pub fn tick(&mut self) {
        self.object.pass_on_diagnostics();
        self.follow_mappings();
        let slots: Vec<u16> = self.targets.keys().copied().collect();
        for slot in slots {
            let Some(target) = self.targets.get_mut(&slot) else { continue };
            if target.ended == Ended::Running && target.process.has_exited().unwrap_or(true) {
                target.ended = Ended::Exited;
                target.stopped_at = Some(Instant::now());
                target.probes.detach();
                target.windows.close();
            }
        }
    }

    /// Whether any target still runs.
    pub fn any_running(&self) -> bool {
        self.targets.values().any(|target| target.ended == Ended::Running)
    }

    /// The exec before a stack may come later: through another CPU's ring.
    fn catch_up_with(&mut self, stack: &Stack) {
        let target = self.targets.get(&stack.slot);
        if target.is_some_and(|target| is_later(stack.epoch, target.epoch)) {
            self.catch_up(stack.slot);
        }
    }

    /// Finds out whether a target's program was replaced: its settings say so before
    /// a ring does, and also if the ring was full.
    pub fn catch_up(&mut self, slot: u16) {
        let Some(target) = self.targets.get(&slot) else { return };
        match self.ledger.config(slot) {
            Ok(config) if config.epoch != target.epoch => {
                self.restart(slot, config.epoch, config.epoch_began_ns);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!("the epoch of process {}: {error}", target.pid()),
        }
    }

    /// The old image's memory is gone, not leaked: start again.
    fn restart(&mut self, slot: u16, epoch: u32, time_ns: u64) {
        self.forget_page_faults(slot, Some(epoch));
        let Some(target) = self.targets.get_mut(&slot) else { return };
        target.epoch = epoch;
        target.execs += 1;
        target.code.replace_all(time_ns);
        target.unplaced.clear();
        self.stacks.forget(target.pid());
        target.page_fault_stacks.clear();
        target.stacks.clear();
        if let Ok(info) = target.process.refresh() {
            target.info = info;
        }
        let (blocks, sites) = (target.maps.blocks.as_fd(), target.maps.sites.as_fd());
        if let Err(error) = snapshot::forget_other_epochs(blocks, sites, epoch, time_ns) {
            tracing::warn!("forgetting the old image of process {}: {error}", target.pid());
        }
        self.refresh_or_warn(slot);
    }

    /// Asks the kernel who maps code, while there is anybody to ask about.
    pub(super) fn start_watch(&mut self) {
        if self.watch.is_none() {
            let started = Watch::start();
            self.drained_ns = snapshot::now_ns().unwrap_or_default();
            self.watch = started
                .inspect_err(|error| {
                    tracing::info!("new mappings are looked for, not told: {error}")
                })
                .ok();
        }
    }

    /// Learns which targets have mapped code, and looks at those.
    fn follow_mappings(&mut self) {
        self.take_tables();
        self.drain_watch();
        let slots: Vec<u16> = self.targets.keys().copied().collect();
        for slot in slots {
            self.refresh_if_due(slot);
        }
    }

    /// Puts unwind tables in their places that have been made meanwhile.
    fn take_tables(&mut self) {
        for pid in self.stacks.collect() {
            let without = self.stacks.without_table(pid);
            for target in self.targets.values_mut().filter(|target| target.pid() == pid) {
                target.note_without_table(&without);
                if let (false, Ok(now)) = (some_are_made(&without), snapshot::now_ns()) {
                    target.code.inserted(now);
                }
            }
        }
    }

    fn drain_watch(&mut self) {
        let (Some(watch), Ok(now)) = (&mut self.watch, snapshot::now_ns()) else { return };
        let running = self.targets.values_mut().filter(|target| target.ended == Ended::Running);
        let mut by_pid: HashMap<u32, &mut Target> =
            running.map(|target| (target.pid(), target)).collect();
        let whole = watch.drain(|mapped| {
            if let Some(target) = by_pid.get_mut(&mapped.pid)
                && target.code.note(&mapped)
            {
                target.refresh_due = true;
                target.doubt_stacks();
            }
        });
        if !whole {
            tracing::debug!("the kernel could not tell of all new mappings");
            for target in by_pid.values_mut() {
                target.code.doubt_all(self.drained_ns);
                target.refresh_due = true;
                target.doubt_stacks();
            }
        }
        self.drained_ns = now;
    }

    fn refresh_if_due(&mut self, slot: u16) {
        let Some(target) = self.targets.get(&slot) else { return };
        let pause = REFRESH_AT_MOST.max(target.refresh_took * REFRESH_SHARE);
        let pause = if target.refresh_due { pause } else { REFRESH.max(pause) };
        if target.ended == Ended::Running && target.refreshed.elapsed() >= pause {
            self.catch_up(slot);
            self.refresh_or_warn(slot);
        }
    }

    fn refresh_or_warn(&mut self, slot: u16) {
        match self.refresh(slot) {
            Ok(()) | Err(EngineError::Process(ProcessError::NotFound(_))) => {}
            Err(error) => tracing::warn!("{error}"),
        }
    }

    /// Reads a target's mappings again, and probes the allocators that are new.
    /// Waits for no file: tables that have to be made come later.
    pub fn refresh(&mut self, slot: u16) -> Result<(), EngineError> {
        self.look_at_mappings(slot, Duration::ZERO)?;
        self.probe(slot)
    }

    /// The same, but tables that have to be made are waited for, as long as the
    /// settings say: the first stacks are whole already.
    pub fn refresh_waiting(&mut self, slot: u16) -> Result<(), EngineError> {
        self.look_at_mappings(slot, self.settings.tables_wait)?;
        self.probe(slot)
    }

    fn look_at_mappings(&mut self, slot: u16, at_most: Duration) -> Result<(), EngineError> {
        // What has been told of by now will be seen.
        self.drain_watch();
        let Some(target) = self.targets.get_mut(&slot) else { return Ok(()) };
        // A busy machine is no reason to look less often: processor time.
        let began = thread_time();
        target.refreshed = Instant::now();
        target.refresh_due = false;
        let pid = target.pid();
        let looked_ns = snapshot::now_ns().map_err(super::system("the clock"))?;
        let mapped = mappings(pid)?;
        let (objects, mut doubtful) = (&mut self.objects, HashSet::new());
        let open = |mapping: &ExecutableMapping| {
            let opened = objects.open(pid, mapping)?;
            if !opened.is_it {
                doubtful.insert(mapping.clone());
            }
            Ok(opened.object)
        };
        // What has come and gone again has misled nobody since then.
        let mut removed_ns = looked_ns;
        let before_ns = target.code.looked_ns();
        let is_new = target.code.set(mapped, looked_ns, open);
        if !doubtful.is_empty() {
            // A file was opened at a mapping's addresses: was it that mapping's still?
            for mapping in mappings(pid).unwrap_or_default() {
                doubtful.remove(&mapping);
            }
            target.refresh_due |= !doubtful.is_empty();
            target.code.disown(&doubtful);
        }
        // What the walker could not be told before, it is told now.
        if is_new || !self.stacks.knows(pid) {
            let synced =
                self.stacks.sync(target, at_most).map_err(super::system("unwind tables"))?;
            tracing::debug!(?synced, pid, "mappings");
            removed_ns = synced.removed_ns;
            target.note_without_table(&synced.without_table);
            for one in synced.without_table.iter().filter(|one| one.why == NoTable::BeingMade) {
                target.code.lacks_table(one.begin, one.end, before_ns);
            }
        }
        target.doubt_stacks();
        target.code.removed(removed_ns);
        if !some_are_made(&self.stacks.without_table(pid)) {
            let inserted_ns = snapshot::now_ns().map_err(super::system("the clock"))?;
            target.code.inserted(inserted_ns);
        }
        target.place_stacks();
        target.refresh_took = thread_time().saturating_sub(began);
        Ok(())
    }

    /// Probes the allocators of a target that are not under probe yet, while
    /// its window is open.
    pub(super) fn probe(&mut self, slot: u16) -> Result<(), EngineError> {
        let Some(target) = self.targets.get_mut(&slot) else { return Ok(()) };
        if !target.windows.is_open() {
            return Ok(());
        }
        let pid = target.pid();
        let code: Vec<Arc<CodeObject>> =
            target.code.current().filter_map(|code| code.object.clone()).collect();
        for object in code {
            if object.discovery.is_empty() || target.attached.contains(object.file.identity()) {
                continue;
            }
            target.attached.insert(*object.file.identity());
            target.probes.attach(&self.programs, &object, target.maps.slot, pid).map_err(
                |source| EngineError::Probe {
                    pid,
                    module: object.file.path().display().to_string(),
                    source,
                },
            )?;
        }
        Ok(())
    }
}

/// Whether an epoch comes after another one.
fn is_later(epoch: u32, other: u32) -> bool {
    epoch.wrapping_sub(other).cast_signed() > 0
}

/// Whether any table is still to come.
fn some_are_made(without: &[WithoutTable]) -> bool {
    without.iter().any(|one| one.why == NoTable::BeingMade)
}

/// When new mappings are asked for.
pub(super) fn drain_interval() -> Interval {
    let mut interval = interval(DRAIN);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
