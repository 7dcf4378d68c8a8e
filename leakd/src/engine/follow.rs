//! What changes while a target is under trace: its mappings, its program
//! image, its children, its end.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use leakd_common::event::StackEnd;

use super::rings::Announcement;
use super::target::Ended;
use super::{Engine, EngineError, snapshot};
use crate::process::{ProcessError, mappings};

/// Mappings are read again this often without a reason ...
const REFRESH: Duration = Duration::from_millis(500);
/// ... and no more often than this with one.
const REFRESH_AT_MOST: Duration = Duration::from_millis(20);

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
    /// Waits for the next announcement of the probes. Cancel-safe.
    pub async fn next(&mut self) -> Option<Announcement> {
        self.announcements.recv().await
    }

    /// An announcement that is there already.
    pub fn try_next(&mut self) -> Option<Announcement> {
        self.announcements.try_recv().ok()
    }

    /// Acts on an announcement.
    pub fn handle(&mut self, announcement: Announcement) -> Option<Event> {
        match announcement {
            Announcement::Stack(stack) => {
                let (slot, site) = (stack.slot, stack.site);
                let lost_its_way = stack.end == StackEnd::NoMapping as u32;
                let target = self.targets.get_mut(&slot)?;
                target.remember(stack);
                if lost_its_way && target.refreshed.elapsed() >= REFRESH_AT_MOST {
                    self.refresh_or_warn(slot);
                }
                Some(Event::NewSite { slot, site })
            }
            Announcement::PageFaultStack(stack) => {
                let (slot, lost_its_way) = (stack.slot, stack.end == StackEnd::NoMapping as u32);
                let target = self.targets.get_mut(&slot)?;
                if stack.epoch == target.epoch {
                    target.page_fault_stacks.insert(stack.site, stack);
                }
                if lost_its_way && target.refreshed.elapsed() >= REFRESH_AT_MOST {
                    self.refresh_or_warn(slot);
                }
                None
            }
            Announcement::Fork { slot, child } => Some(Event::Forked { slot, child }),
            Announcement::Exec { slot, epoch } => {
                self.restart(slot, epoch);
                Some(Event::Execed { slot })
            }
        }
    }

    /// To be called a few times a second: finds out which targets have ended
    /// and which mapped new code.
    pub fn tick(&mut self) {
        let slots: Vec<u16> = self.targets.keys().copied().collect();
        for slot in slots {
            let Some(target) = self.targets.get_mut(&slot) else { continue };
            if target.ended == Ended::Running && target.process.has_exited().unwrap_or(true) {
                target.ended = Ended::Exited;
                target.stopped_at = Some(Instant::now());
                target.probes.detach();
                target.windows.close();
            }
            if target.ended == Ended::Running && target.refreshed.elapsed() >= REFRESH {
                self.refresh_or_warn(slot);
            }
        }
    }

    /// Whether any target still runs.
    pub fn any_running(&self) -> bool {
        self.targets.values().any(|target| target.ended == Ended::Running)
    }

    /// The old image's memory is gone, not leaked: start again.
    fn restart(&mut self, slot: u16, epoch: u32) {
        let Some(target) = self.targets.get_mut(&slot) else { return };
        target.epoch = epoch;
        target.execs += 1;
        target.code.clear();
        target.mappings.clear();
        self.stacks.forget(target.pid());
        target.page_fault_stacks.clear();
        let old = std::mem::take(&mut target.stacks);
        if let Ok(info) = target.process.refresh() {
            target.info = info;
        }
        let keep = |site: u64| !old.contains_key(&site);
        if let Err(error) = snapshot::retain_sites(target.maps.blocks.as_fd(), keep) {
            tracing::warn!("forgetting the old image of process {}: {error}", target.pid());
        }
        self.refresh_or_warn(slot);
    }

    fn refresh_or_warn(&mut self, slot: u16) {
        match self.refresh(slot) {
            Ok(()) | Err(EngineError::Process(ProcessError::NotFound(_))) => {}
            Err(error) => tracing::warn!("{error}"),
        }
    }

    /// Reads a target's mappings again, and probes the allocators that are new.
    pub fn refresh(&mut self, slot: u16) -> Result<(), EngineError> {
        let Some(target) = self.targets.get_mut(&slot) else { return Ok(()) };
        target.refreshed = Instant::now();
        let pid = target.pid();
        let mapped = mappings(pid)?;
        let objects = &mut self.objects;
        if !target.set_code(mapped, |mapping| objects.open(pid, mapping)) {
            return Ok(());
        }
        // Before the probes, so that the first stacks are whole already.
        let synced = self.stacks.sync(target).map_err(super::system("unwind tables"))?;
        tracing::debug!(?synced, pid, "mappings");
        self.probe(slot)
    }

    /// Probes the allocators of a target that are not under probe yet, while
    /// its window is open.
    pub(super) fn probe(&mut self, slot: u16) -> Result<(), EngineError> {
        let Some(target) = self.targets.get_mut(&slot) else { return Ok(()) };
        if !target.windows.is_open() {
            return Ok(());
        }
        let pid = target.pid();
        for code in &target.code {
            let Some(object) = &code.object else { continue };
            if object.discovery.is_empty() || target.attached.contains(&object.identity) {
                continue;
            }
            target.attached.insert(object.identity);
            target.probes.attach(&self.programs, object, target.maps.slot, pid).map_err(
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
