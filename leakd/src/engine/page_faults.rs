//! Which code touches memory for the first time, and so makes a target's
//! resident memory grow.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;

use leakd_common::page_fault::{PageFaultKey, PageFaultSite};

use super::{Engine, EngineError, plain, snapshot};

impl Engine {
    /// Counts the page faults of all targets from now on. Every page fault of
    /// the machine passes the tracepoint, so it is not done unless asked for.
    pub fn watch_page_faults(&mut self) -> Result<(), EngineError> {
        if self.page_faults.is_none() {
            let map = self.object.owned_map("PAGE_FAULTS")?;
            self.object.attach_tracepoint("page_fault_user", "page_fault_user")?;
            self.page_faults = Some(map);
        }
        Ok(())
    }

    /// A target's page faults, by call site of its current program image; none
    /// unless they are watched.
    pub fn page_faults(&self, slot: u16) -> io::Result<HashMap<u64, PageFaultSite>> {
        let epoch = self.ledger.config(slot)?.epoch;
        let mut sites = HashMap::new();
        self.each_page_fault_site(slot, |key, site| {
            if site.epoch == epoch {
                sites.insert(key.site, site);
            }
        })?;
        Ok(sites)
    }

    /// Forgets a slot's page faults, but for those of the epoch that is to be kept.
    pub(super) fn forget_page_faults(&self, slot: u16, kept: Option<u32>) {
        let Some(map) = &self.page_faults else { return };
        let is_doomed = |key: &[u8], site: &[u8]| {
            plain::read::<PageFaultKey>(key).slot == u32::from(slot)
                && Some(plain::read::<PageFaultSite>(site).epoch) != kept
        };
        if let Err(error) = snapshot::remove_if(map.as_fd(), is_doomed) {
            tracing::warn!("forgetting the page faults of slot {slot}: {error}");
        }
    }

    fn each_page_fault_site(
        &self,
        slot: u16,
        mut visit: impl FnMut(PageFaultKey, PageFaultSite),
    ) -> io::Result<()> {
        let Some(map) = &self.page_faults else { return Ok(()) };
        snapshot::for_each(map.as_fd(), |key, site| {
            let key: PageFaultKey = plain::read(key);
            if key.slot == u32::from(slot) {
                visit(key, plain::read(site));
            }
        })
    }
}
