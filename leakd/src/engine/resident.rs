//! What the parts of a target's resident memory are found from.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::snapshot;
use super::target::{Ended, Target};
use crate::resident::Composition;
use crate::scan::memory::is_c_library;

/// A target's process and ledger: for another thread, while the engine goes on.
#[derive(Debug)]
pub struct ResidentSource {
    pid: u32,
    blocks: OwnedFd,
    foreign: bool,
}

impl Target {
    /// What the parts of its resident memory are found from; `None`: it has ended.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn resident_source(&self) -> io::Result<Option<ResidentSource>> {
        if self.ended() != Ended::Running {
            return Ok(None);
        }
        let mut allocators = self.probes().functions().iter();
        let foreign = allocators.any(|function| !is_c_library(Path::new(&function.module)));
        let blocks = self.maps.blocks.try_clone()?;
        Ok(Some(ResidentSource { pid: self.pid(), blocks, foreign }))
    }
}

impl ResidentSource {
    /// Looks at the process as it is now, and at the ledger.
    ///
    /// # Errors
    /// If the process is gone, or has replaced its program.
    pub fn compose(&self) -> io::Result<Composition> {
        Composition::of(self.pid, snapshot::each_block(self.blocks.as_fd())?, self.foreign)
    }
}
