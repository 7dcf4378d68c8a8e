//! More or less of a target while it is under trace: thinner samples, or no
//! probes for a while.

use std::time::{Duration, Instant};

use super::probes::Probes;
use super::{Engine, EngineError, sampling, system};

/// The spans of time in which a target's probes are in.
#[derive(Clone, Debug)]
pub struct Windows {
    count: u64,
    /// Of those that are closed, together.
    closed: Duration,
    /// Of these, together, those before the tables were last empty.
    filled: Duration,
    /// Of the last one that was closed.
    last: Duration,
    opened: Option<Instant>,
}

impl Windows {
    /// The first window, opened at `now`.
    pub(crate) fn opened(now: Instant) -> Self {
        Self {
            count: 1,
            closed: Duration::ZERO,
            filled: Duration::ZERO,
            last: Duration::ZERO,
            opened: Some(now),
        }
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether one is open.
    pub fn is_open(&self) -> bool {
        self.opened.is_some()
    }

    /// How long probes were in, altogether.
    pub fn open_for(&self) -> Duration {
        self.closed + self.opened.map_or(Duration::ZERO, |opened| opened.elapsed())
    }

    /// How long they were in since the tables were last empty.
    pub fn filling_for(&self) -> Duration {
        self.open_for().saturating_sub(self.filled)
    }

    /// How long they were in the last window.
    pub fn last_for(&self) -> Duration {
        self.opened.map_or(self.last, |opened| opened.elapsed())
    }

    pub(crate) fn open(&mut self) {
        if self.opened.is_none() {
            self.count += 1;
            self.opened = Some(Instant::now());
        }
    }

    /// The tables are empty again; the window is closed.
    pub(crate) fn emptied(&mut self) {
        self.filled = self.closed;
    }

    pub(crate) fn close(&mut self) {
        if let Some(opened) = self.opened.take() {
            self.last = opened.elapsed();
            self.closed += self.last;
        }
    }
}

/// What a window begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tables {
    /// Nothing: all that is recorded is true.
    Empty,
    /// What the windows before have recorded. A block whose free was missed
    /// stays until its address is handed out again.
    Kept,
}

impl Engine {
    /// Changes the sampling of a target that was attached adjustable; 0: all
    /// are recorded. Blocks keep the weight that they were sampled with.
    pub fn set_sample_bytes(&mut self, slot: u16, bytes: u64) -> Result<(), EngineError> {
        let Some(target) = self.targets.get_mut(&slot).filter(|target| target.adjustable) else {
            return Ok(());
        };
        self.ledger.set_weights(slot, &sampling::weights(bytes)).map_err(system("sampling"))?;
        // Once there were samples, the totals are estimates.
        if bytes > 0 {
            target.sample_bytes = bytes;
        }
        Ok(())
    }

    /// Takes a target's probes out for a while; gives how long that took. Its
    /// tables stay to be read; they are those of the window that ends.
    pub fn close_window(&mut self, slot: u16) -> Duration {
        let began = Instant::now();
        if let Some(target) = self.targets.get_mut(&slot) {
            target.probes.detach();
            target.windows.close();
        }
        began.elapsed()
    }

    /// Puts a target's probes in again. Of blocks from before, frees may have
    /// been missed: see [`Tables`].
    pub fn open_window(&mut self, slot: u16, tables: Tables) -> Result<(), EngineError> {
        let Some(target) = self.targets.get_mut(&slot) else { return Ok(()) };
        if target.windows.is_open() {
            return Ok(());
        }
        match tables {
            Tables::Empty => {
                self.ledger.renew(&mut target.maps).map_err(system("tables for the target"))?;
                target.stacks.clear();
                target.windows.emptied();
            }
            // Calls were left while no probe was in.
            Tables::Kept => {
                self.ledger.forget_calls(target.pid()).map_err(system("calls of the target"))?;
            }
        }
        target.attached.clear();
        target.probes = Probes::default();
        target.windows.open();
        self.refresh(slot)?;
        self.probe(slot)
    }
}
