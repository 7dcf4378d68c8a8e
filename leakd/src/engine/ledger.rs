//! The ledger's maps, as user space sees them: one slot for each target.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use leakd_common::bad_free::FreeChecks;
use leakd_common::block::Block;
use leakd_common::site::{OVERFLOW_SITE, Site};
use leakd_common::target::{
    COUNTERS, SAMPLE_CLASSES, SITES, TARGETS, TargetConfig, TargetCounters,
};

use super::plain::{bytes_of, read};
use crate::bpf::object::{BpfObject, ObjectError};
use crate::bpf::sys::{self, MapSpec, map_flags, map_type};

/// Handles of the maps that all targets share.
#[derive(Debug)]
pub struct Ledger {
    targets: OwnedFd,
    counters: OwnedFd,
    blocks: OwnedFd,
    sites: OwnedFd,
    slots: OwnedFd,
    sampling: OwnedFd,
    threads: OwnedFd,
    used: [bool; TARGETS],
    /// Where the search for a free slot begins.
    next: usize,
}

/// One target's own maps.
#[derive(Debug)]
pub struct SlotMaps {
    /// Its index in the shared maps.
    pub slot: u16,
    /// Outstanding blocks by address.
    pub blocks: OwnedFd,
    /// Call sites by stack hash.
    pub sites: OwnedFd,
    /// Most blocks that `blocks` holds.
    pub quota: u32,
    tgid: u32,
}

impl Ledger {
    /// Takes handles of the object's maps.
    pub fn new(object: &BpfObject) -> Result<Self, ObjectError> {
        let map = |name: &str| object.owned_map(name);
        Ok(Self {
            targets: map("TARGETS")?,
            counters: map("COUNTERS")?,
            blocks: map("BLOCKS")?,
            sites: map("SITES")?,
            slots: map("SLOTS")?,
            sampling: map("SAMPLING")?,
            threads: map("THREADS")?,
            used: [false; TARGETS],
            next: 0,
        })
    }

    /// Opens a slot for a process, with room for `quota` blocks.
    pub fn open(&mut self, tgid: u32, quota: u32) -> io::Result<SlotMaps> {
        // The one that was given back longest ago: a link may outlive its slot for
        // a moment, since a child process has it, too, between fork and exec.
        let mut slots = (0..TARGETS).map(|step| (self.next + step) % TARGETS);
        let free = slots.find(|slot| !self.used[*slot]).ok_or_else(|| {
            io::Error::other(format!("{TARGETS} processes are traced already: detach one first"))
        })?;
        let slot = free as u16;
        let (blocks, sites) = Self::tables(quota)?;
        let key = u32::from(slot).to_ne_bytes();
        let zero = vec![0u8; COUNTERS * 8 * sys::possible_cpus()?];
        sys::map_update(self.counters.as_fd(), &key, &zero, 0)?;
        self.forget_calls(tgid)?;
        self.write_config(slot, &TargetConfig { tgid, ..TargetConfig::default() })?;
        self.install(slot, &blocks, &sites)?;
        sys::map_update(self.slots.as_fd(), &tgid.to_ne_bytes(), &key, 0)?;
        self.used[free] = true;
        self.next = free + 1;
        Ok(SlotMaps { slot, blocks, sites, quota, tgid })
    }

    /// Gives a slot empty tables, while no probe is in; its counters go on.
    pub fn renew(&self, maps: &mut SlotMaps) -> io::Result<()> {
        let (blocks, sites) = Self::tables(maps.quota)?;
        self.forget_calls(maps.tgid)?;
        self.install(maps.slot, &blocks, &sites)?;
        (maps.blocks, maps.sites) = (blocks, sites);
        Ok(())
    }

    fn install(&self, slot: u16, blocks: &OwnedFd, sites: &OwnedFd) -> io::Result<()> {
        let key = u32::from(slot).to_ne_bytes();
        sys::map_update(self.blocks.as_fd(), &key, &blocks.as_raw_fd().to_ne_bytes(), 0)?;
        sys::map_update(self.sites.as_fd(), &key, &sites.as_raw_fd().to_ne_bytes(), 0)
    }

    /// Empty tables of blocks and of sites.
    fn tables(quota: u32) -> io::Result<(OwnedFd, OwnedFd)> {
        let hash = |name, value_size, max_entries| {
            sys::map_create(&MapSpec {
                map_type: map_type::HASH,
                key_size: 8,
                value_size,
                max_entries,
                flags: map_flags::NO_PREALLOC,
                name,
            })
        };
        let blocks = hash("leakd_blocks", size_of::<Block>() as u32, quota)?;
        let sites = hash("leakd_sites", size_of::<Site>() as u32, SITES)?;
        sys::map_update(
            sites.as_fd(),
            &OVERFLOW_SITE.to_ne_bytes(),
            bytes_of(&Site { announced: 1, ..Site::EMPTY }),
            0,
        )?;
        Ok((blocks, sites))
    }

    /// Forgets the calls that threads were in when an earlier trace of the same
    /// process ended.
    pub(super) fn forget_calls(&self, tgid: u32) -> io::Result<()> {
        // That it has gone is for others to find out.
        let threads = std::fs::read_dir(format!("/proc/{tgid}/task")).into_iter().flatten();
        for thread in threads.flatten() {
            if let Some(Ok(thread)) = thread.file_name().to_str().map(str::parse::<u32>) {
                sys::map_delete(self.threads.as_fd(), &thread.to_ne_bytes())?;
            }
        }
        Ok(())
    }

    /// Gives a slot back. Links that are still there do nothing from then on.
    pub fn close(&mut self, maps: &SlotMaps) -> io::Result<()> {
        let key = u32::from(maps.slot).to_ne_bytes();
        // Every step is tried, so that one failure leaves as little as can be.
        let results = [
            sys::map_delete(self.slots.as_fd(), &maps.tgid.to_ne_bytes()).map(drop),
            sys::map_delete(self.blocks.as_fd(), &key).map(drop),
            sys::map_delete(self.sites.as_fd(), &key).map(drop),
            self.write_config(maps.slot, &TargetConfig { paused: 1, ..TargetConfig::default() }),
        ];
        if let Some(used) = self.used.get_mut(usize::from(maps.slot)) {
            *used = false;
        }
        results.into_iter().collect()
    }

    /// Reads a slot's settings, with the epoch that the kernel is at.
    pub fn config(&self, slot: u16) -> io::Result<TargetConfig> {
        let mut value = [0u8; size_of::<TargetConfig>()];
        sys::map_lookup(self.targets.as_fd(), &u32::from(slot).to_ne_bytes(), &mut value)?;
        Ok(read(&value))
    }

    fn write_config(&self, slot: u16, config: &TargetConfig) -> io::Result<()> {
        sys::map_update(self.targets.as_fd(), &u32::from(slot).to_ne_bytes(), bytes_of(config), 0)
    }

    /// Switches sampling on, by a weight for each size class, or off. Call it
    /// before the links are made: the kernel writes the epoch beside it.
    pub fn set_sampling(
        &self,
        slot: u16,
        weights: Option<&[u32; SAMPLE_CLASSES]>,
    ) -> io::Result<()> {
        if let Some(weights) = weights {
            self.set_weights(slot, weights)?;
        }
        let config = self.config(slot)?;
        self.write_config(slot, &TargetConfig { sampling: u32::from(weights.is_some()), ..config })
    }

    /// Says what a slot's frees are looked at for. Call it before the links are made.
    pub fn set_free_checks(&self, slot: u16, checks: FreeChecks) -> io::Result<()> {
        let config = self.config(slot)?;
        self.write_config(slot, &TargetConfig { free_checks: checks as u32, ..config })
    }

    /// Changes the weights of a slot that has sampling on, at any time.
    pub fn set_weights(&self, slot: u16, weights: &[u32; SAMPLE_CLASSES]) -> io::Result<()> {
        let first = u32::from(slot) * SAMPLE_CLASSES as u32;
        let keys: Vec<u8> =
            (first..first + SAMPLE_CLASSES as u32).flat_map(u32::to_ne_bytes).collect();
        let values: Vec<u8> = weights.iter().flat_map(|weight| weight.to_ne_bytes()).collect();
        sys::map_update_batch(self.sampling.as_fd(), &keys, &values, SAMPLE_CLASSES as u32, 0)?;
        Ok(())
    }

    /// A slot's counters, summed over all CPUs.
    pub fn counters(&self, slot: u16) -> io::Result<TargetCounters> {
        let mut values = vec![0u8; COUNTERS * 8 * sys::possible_cpus()?];
        sys::map_lookup(self.counters.as_fd(), &u32::from(slot).to_ne_bytes(), &mut values)?;
        let mut sum = TargetCounters::default();
        for cpu in values.chunks_exact(size_of::<TargetCounters>()) {
            let cpu: TargetCounters = read(cpu);
            for (total, count) in sum.counts.iter_mut().zip(cpu.counts) {
                *total += count;
            }
        }
        Ok(sum)
    }
}

/// Memory that a map takes, in bytes, as the kernel accounts for it.
pub fn map_memory(map: BorrowedFd<'_>) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd()))?;
    text.lines()
        .find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok())
        .ok_or_else(|| io::Error::other("no memlock line in a map's fdinfo"))
}
