//! Memory that the kernel uses for what BPF maps are made of.

use std::fs;

use anyhow::{Context, Result};

/// Bytes in use at one moment, over the whole machine: slabs of kmalloc, which
/// map elements come from, vmalloc, which tables come from, and per-CPU memory.
/// Other slabs are left out: file systems fill and empty them all the time.
#[derive(Clone, Copy, Debug)]
pub struct KernelMemory {
    bytes: u64,
}

impl KernelMemory {
    /// What has been added since `earlier`, by anybody.
    pub fn since(self, earlier: Self) -> f64 {
        self.bytes as f64 - earlier.bytes as f64
    }
}

/// Reads it.
pub fn now() -> Result<KernelMemory> {
    let slabs = fs::read_to_string("/proc/slabinfo").context("cannot read /proc/slabinfo")?;
    let information = fs::read_to_string("/proc/meminfo")?;
    let bytes = kmalloc_bytes(&slabs)
        + field(&information, "VmallocUsed:").unwrap_or(0)
        + field(&information, "Percpu:").unwrap_or(0);
    Ok(KernelMemory { bytes })
}

/// A field of /proc/meminfo, in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes << 10)
}

/// Bytes of the slabs of kmalloc: name, active objects, objects, bytes of each,
/// objects a slab, pages a slab ... : slabdata, active slabs, slabs.
fn kmalloc_bytes(slabs: &str) -> u64 {
    const PAGE: u64 = 4096;
    slabs
        .lines()
        .filter(|line| line.starts_with("kmalloc-"))
        .filter_map(|line| {
            let (sizes, counts) = line.split_once(": slabdata")?;
            let pages: u64 = sizes.split_whitespace().nth(5)?.parse().ok()?;
            let slabs: u64 = counts.split_whitespace().nth(1)?.parse().ok()?;
            Some(slabs * pages * PAGE)
        })
        .sum()
}
