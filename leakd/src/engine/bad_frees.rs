//! Frees that were wrong, as the programs tell of them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use leakd_common::bad_free::{BadFree, BadFreeKey, FreeChecks, FreedKey};

use super::target::{SeenFrom, Target};
use super::{Engine, plain, snapshot};
use crate::bpf::object::{BpfObject, ObjectError};

/// Where frees are looked at: the programs' tables.
#[derive(Debug)]
pub struct BadFrees {
    /// Those that were wrong.
    found: OwnedFd,
    /// The last ones that were right.
    recent: OwnedFd,
}

impl BadFrees {
    pub(super) fn new(object: &BpfObject) -> Result<Self, ObjectError> {
        Ok(Self {
            found: object.owned_map("BAD_FREES_FOUND")?,
            recent: object.owned_map("RECENT_FREES")?,
        })
    }

    /// What is looked for in a target. That a block was never allocated can only be
    /// told where every allocation was seen.
    pub(super) const fn checks(seen_from: SeenFrom) -> FreeChecks {
        match seen_from {
            SeenFrom::Attach => FreeChecks::Twice,
            SeenFrom::Start => FreeChecks::All,
        }
    }

    fn each(&self, slot: u16) -> io::Result<Vec<(BadFreeKey, BadFree)>> {
        let mut found = Vec::new();
        snapshot::for_each(self.found.as_fd(), |key, bad| {
            let key: BadFreeKey = plain::read(key);
            if key.slot == u32::from(slot) {
                found.push((key, plain::read(bad)));
            }
        })?;
        Ok(found)
    }

    /// Empties a slot that will be another target's, whose blocks may have the same
    /// addresses.
    pub(super) fn forget(&self, slot: u16) {
        let slot = u32::from(slot);
        let found = snapshot::remove_if(self.found.as_fd(), |key, _| {
            plain::read::<BadFreeKey>(key).slot == slot
        });
        let recent = snapshot::remove_if(self.recent.as_fd(), |key, _| {
            plain::read::<FreedKey>(key).slot == slot
        });
        if let Err(error) = found.and(recent) {
            tracing::warn!("forgetting the frees of slot {slot}: {error}");
        }
    }
}

impl Engine {
    /// A target's frees that were wrong, those of its present program image, the
    /// first first; `None`: it is not looked for them.
    pub(super) fn bad_frees(
        &self,
        target: &Target,
    ) -> io::Result<Option<Vec<(BadFreeKey, BadFree)>>> {
        let Some(bad_frees) =
            self.bad_frees.as_ref().filter(|_| target.free_checks != FreeChecks::Off)
        else {
            return Ok(None);
        };
        let mut found = bad_frees.each(target.slot())?;
        found.retain(|(key, _)| key.epoch == target.epoch);
        found.sort_by_key(|(_, bad)| bad.time_ns);
        Ok(Some(found))
    }
}
