//! Programs in for a while, and out for a while: what the governor asks for
//! where recording everything all the time would cost too much.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use leakd_common::kernel::KernelSite;
use leakd_common::site::Site;

use super::{KernelError, KernelTrace};
use crate::engine::plain::read;
use crate::engine::snapshot::{self, SiteBlocks, for_each, now_ns};
use crate::engine::window::{Tables, Windows};

/// The tables at one time.
#[derive(Debug)]
pub struct Look {
    /// When, CLOCK_MONOTONIC in nanoseconds.
    pub now_ns: u64,
    /// Totals of all call sites.
    pub sites: HashMap<u64, Site>,
    /// Their blocks, if they were asked for.
    pub blocks: Option<HashMap<u64, SiteBlocks>>,
}

impl KernelTrace {
    /// The spans of time in which the programs were in.
    pub fn windows(&self) -> &Windows {
        &self.windows
    }

    /// Takes the programs out for a while; gives how long that took. What was
    /// recorded stays to be read.
    pub fn close_window(&mut self) -> Result<Duration, KernelError> {
        let began = Instant::now();
        self.object.record(false)?;
        self.object.detach();
        self.windows.close();
        self.poll();
        Ok(began.elapsed())
    }

    /// Puts them in again. Of blocks from before, frees may have been missed: a
    /// block that is kept stays until its address is handed out again.
    pub fn open_window(&mut self, tables: Tables) -> Result<(), KernelError> {
        if self.windows.is_open() {
            return Ok(());
        }
        if tables == Tables::Empty {
            self.object.clear()?;
            self.stacks.clear();
            self.windows.emptied();
        }
        self.object.attach_again()?;
        self.object.record(true)?;
        self.windows.open();
        Ok(())
    }

    /// The totals of all call sites, and with `blocks` their blocks.
    pub fn look(&self, blocks: bool) -> Result<Look, KernelError> {
        let now_ns = now_ns()?;
        let blocks = match blocks {
            true => Some(snapshot::blocks(self.object.map("BLOCKS")?, now_ns)?),
            false => None,
        };
        let mut sites = HashMap::new();
        for_each(self.object.map("SITES")?, |key, value| {
            sites.insert(read(key), read::<KernelSite>(value).totals);
        })?;
        Ok(Look { now_ns, sites, blocks })
    }
}
