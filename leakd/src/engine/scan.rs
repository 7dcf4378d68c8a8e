//! What a scan reads of a target.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::target::{Ended, Target};
use super::{Engine, snapshot};
use crate::bpf::iterator::TaskIterator;
use crate::scan::{Outcome, ScanError, live, stopped};

/// The program that reads the registers of threads.
const THREAD_REGISTERS: &str = "thread_registers";

/// What a scan reads of a target: for another thread, while the engine goes on.
#[derive(Debug)]
pub struct ScanSource {
    pid: u32,
    blocks: OwnedFd,
    iterator: Option<TaskIterator>,
}

/// Tells whether a target's table of blocks has been the same all the time, and
/// has seen every free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation {
    execs: u32,
}

impl Target {
    /// The generation of its table of blocks; `None`: frees were missed, because
    /// its probes were out for a while, or it has ended.
    pub fn generation(&self) -> Option<Generation> {
        let windows = self.windows();
        let whole = windows.count() == 1 && windows.is_open() && self.ended() == Ended::Running;
        whole.then_some(Generation { execs: self.execs() })
    }
}

impl Engine {
    /// What a scan of a target reads. The engine must live as long as it. What is
    /// found is true if the target's [`Target::generation`] is the same before and
    /// after.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn scan_source(&self, target: &Target) -> io::Result<ScanSource> {
        let iterator = TaskIterator::load(&self.object, THREAD_REGISTERS)
            .inspect_err(|error| tracing::debug!("threads will be stopped: {error}"));
        Ok(ScanSource {
            pid: target.pid(),
            blocks: target.maps.blocks.try_clone()?,
            iterator: iterator.ok(),
        })
    }
}

impl ScanSource {
    /// Scans; `pause`: stops the process, for so long at most. `progress` is told
    /// after each look how many there were, and how many blocks seem to be lost.
    ///
    /// # Errors
    /// See [`ScanError`].
    pub fn scan(
        &self,
        pause: Option<Duration>,
        progress: &mut dyn FnMut(u32, u64),
    ) -> Result<Outcome, ScanError> {
        let ledger = || snapshot::each_block(self.blocks.as_fd());
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        match pause {
            Some(most) => stopped::scan(self.pid, threads, most, &ledger),
            None => {
                let iterator = self.iterator.as_ref();
                let subject = live::Subject { pid: self.pid, iterator, threads };
                live::scan(&subject, &ledger, progress)
            }
        }
    }
}
