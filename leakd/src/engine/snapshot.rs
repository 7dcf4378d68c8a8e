//! A target's call sites and the ages of its blocks, read in batches.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use leakd_common::block::Block;
use leakd_common::site::Site;
use nix::time::{ClockId, clock_gettime};

use super::plain::read;
use crate::bpf::sys::{self, BatchCursor};

/// Elements that are read at once.
const BATCH: u32 = 16 << 10;
/// A hash bucket that does not fit makes the buffers grow, up to this.
const LARGEST_BATCH: u32 = 4 << 20;

/// The outstanding blocks of one call site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteBlocks {
    /// Blocks of at least the minimum age, weighted.
    pub aged_blocks: u64,
    /// Their bytes.
    pub aged_bytes: u64,
    /// Birth times of all blocks, CLOCK_MONOTONIC ns, in no order.
    pub births: Vec<u64>,
}

/// Now, by the clock that the probes stamp blocks with (CLOCK_MONOTONIC, ns).
pub fn now_ns() -> io::Result<u64> {
    let now: Duration = clock_gettime(ClockId::CLOCK_MONOTONIC)?.into();
    Ok(now.as_nanos() as u64)
}

/// Every call site, by its key.
pub fn sites(map: BorrowedFd<'_>) -> io::Result<HashMap<u64, Site>> {
    let mut sites = HashMap::new();
    for_each(map, |key, value| {
        sites.insert(read(key), read::<Site>(value));
    })?;
    Ok(sites)
}

/// The outstanding blocks by call site. Blocks born after `newest_birth` are
/// younger than the minimum age.
pub fn blocks(map: BorrowedFd<'_>, newest_birth: u64) -> io::Result<HashMap<u64, SiteBlocks>> {
    let mut sites: HashMap<u64, SiteBlocks> = HashMap::new();
    for_each(map, |_, value| {
        let block: Block = read(value);
        let site = sites.entry(block.site).or_default();
        site.births.push(block.birth_ns);
        if block.birth_ns <= newest_birth {
            let weight = u64::from(block.weight);
            site.aged_blocks += weight;
            site.aged_bytes += block.size() * weight;
        }
    })?;
    Ok(sites)
}

/// Every outstanding block, by itself.
pub fn each_block(map: BorrowedFd<'_>) -> io::Result<Vec<crate::scan::index::Block>> {
    let mut blocks = Vec::new();
    for_each(map, |address, value| {
        let block: Block = read(value);
        blocks.push(crate::scan::index::Block {
            address: read(address),
            size: block.size(),
            site: block.site,
            birth_ns: block.birth_ns,
            weight: block.weight,
        });
    })?;
    Ok(blocks)
}

/// Takes the blocks out of the ledger whose site is not among `sites`: those of
/// the program image before an exec.
pub fn retain_sites(map: BorrowedFd<'_>, keep: impl Fn(u64) -> bool) -> io::Result<u64> {
    remove_if(map, |_, value| !keep(read::<Block>(value).site))
}

/// Takes those elements out of a hash map that `doomed` says so of, by key and value;
/// gives how many.
pub(crate) fn remove_if(
    map: BorrowedFd<'_>,
    doomed: impl Fn(&[u8], &[u8]) -> bool,
) -> io::Result<u64> {
    let mut gone = Vec::new();
    for_each(map, |key, value| {
        if doomed(key, value) {
            gone.push(key.to_vec());
        }
    })?;
    for key in &gone {
        sys::map_delete(map.as_fd(), key)?;
    }
    Ok(gone.len() as u64)
}

/// Calls `visit` with each key and value of a hash map.
pub(crate) fn for_each(map: BorrowedFd<'_>, mut visit: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
    let shape = sys::map_shape(map)?;
    let (key_size, value_size) = (shape.key_size as usize, shape.value_size as usize);
    let mut capacity = BATCH;
    let mut cursor = BatchCursor::new();
    let mut keys = vec![0u8; key_size * capacity as usize];
    let mut values = vec![0u8; value_size * capacity as usize];
    loop {
        match sys::map_lookup_batch(map, &mut cursor, &mut keys, &mut values, capacity) {
            Ok(batch) => {
                let count = batch.count as usize;
                let keys = keys.chunks_exact(key_size);
                for (key, value) in keys.zip(values.chunks_exact(value_size)).take(count) {
                    visit(key, value);
                }
                if batch.done {
                    return Ok(());
                }
            }
            Err(error)
                if error.raw_os_error() == Some(libc::ENOSPC) && capacity < LARGEST_BATCH =>
            {
                capacity *= 2;
                keys.resize(key_size * capacity as usize, 0);
                values.resize(value_size * capacity as usize, 0);
            }
            // The cursor's bucket is gone, or a concurrent change: try again.
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}
