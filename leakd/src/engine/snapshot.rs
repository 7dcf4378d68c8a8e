//! A target's call sites and the ages of its blocks, read in batches.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use leakd_common::block::Block;
use leakd_common::site::{OVERFLOW_SITE, Site};
use nix::time::{ClockId, clock_gettime};

use super::plain::{bytes_of, read};
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

/// Takes out of the ledger what the program images before an exec left behind:
/// all of other epochs than `epoch`, which began at `began_ns`.
pub fn forget_other_epochs(
    blocks: BorrowedFd<'_>,
    sites: BorrowedFd<'_>,
    epoch: u32,
    began_ns: u64,
) -> io::Result<()> {
    let is_other = |key: u64, site: &Site| key != OVERFLOW_SITE && site.epoch != epoch;
    let all = self::sites(sites)?;
    let other: HashSet<u64> =
        all.iter().filter(|(key, site)| is_other(**key, site)).map(|(key, _)| *key).collect();
    remove_if(blocks, |_, value| {
        let block: Block = read(value);
        other.contains(&block.site) || block.site == OVERFLOW_SITE && block.birth_ns < began_ns
    })?;
    remove_if(sites, |key, value| is_other(read(key), &read(value)))?;
    if all.get(&OVERFLOW_SITE).is_some_and(|site| site.allocated_blocks > 0) {
        // It goes on with what is left of it.
        let mut site = Site { announced: 1, ..Site::EMPTY };
        for_each(blocks, |_, value| {
            let block: Block = read(value);
            if block.site == OVERFLOW_SITE {
                site.allocated_blocks += u64::from(block.weight);
                site.allocated_bytes += block.size() * u64::from(block.weight);
            }
        })?;
        sys::map_update(sites, &OVERFLOW_SITE.to_ne_bytes(), bytes_of(&site), 0)?;
    }
    Ok(())
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
    let mut removed = 0;
    let mut value = vec![0; sys::map_shape(map)?.value_size as usize];
    for key in &gone {
        // Another one may have come in its place.
        if sys::map_lookup(map, key, &mut value)? && doomed(key, &value) {
            removed += u64::from(sys::map_delete(map, key)?);
        }
    }
    Ok(removed)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::sys::{MapSpec, map_type};
    use std::os::fd::{AsFd, OwnedFd};

    fn table(value_size: usize) -> OwnedFd {
        let (map_type, value_size) = (map_type::HASH, value_size as u32);
        let spec =
            MapSpec { map_type, key_size: 8, value_size, max_entries: 64, flags: 0, name: "test" };
        sys::map_create(&spec).expect("a map")
    }

    fn put<T: aya::Pod>(map: &OwnedFd, key: u64, value: &T) {
        sys::map_update(map.as_fd(), &key.to_ne_bytes(), bytes_of(value), 0).expect("an update");
    }

    /// Check that an exec leaves nothing of the old program, and all of the new one,
    /// also where both share the overflow site.
    #[test]
    fn other_epochs_are_forgotten() {
        let (blocks, sites) = (table(size_of::<Block>()), table(size_of::<Site>()));
        for (site, epoch, allocated_blocks) in [(1, 1, 2), (2, 2, 1), (OVERFLOW_SITE, 0, 3)] {
            put(&sites, site, &Site { epoch, allocated_blocks, announced: 1, ..Site::EMPTY });
        }
        let of_old = [(0x10, 1, 10), (0x20, 1, 20), (0x30, OVERFLOW_SITE, 30)];
        let of_new = [(0x40, 2, 101), (0x50, OVERFLOW_SITE, 100), (0x60, OVERFLOW_SITE, 102)];
        for (address, site, birth_ns) in of_old.into_iter().chain(of_new) {
            let size_and_owner = Block::pack(address, 0);
            put(&blocks, address, &Block { size_and_owner, birth_ns, site, weight: 1, tid: 0 });
        }
        forget_other_epochs(blocks.as_fd(), sites.as_fd(), 2, 100).unwrap();
        let mut left: Vec<u64> =
            each_block(blocks.as_fd()).unwrap().iter().map(|block| block.address).collect();
        left.sort_unstable();
        assert_eq!(left, [0x40, 0x50, 0x60]);
        let sites = self::sites(sites.as_fd()).unwrap();
        assert_eq!(sites.len(), 2);
        assert_eq!(sites[&2].outstanding_blocks(), 1);
        let overflow = sites[&OVERFLOW_SITE];
        assert_eq!((overflow.outstanding_blocks(), overflow.outstanding_bytes()), (2, 0xb0));
        assert_eq!(overflow.announced, 1);
    }
}
