//! Slab caches, from /proc/slabinfo (slabinfo(5)), which only root may read.

use std::collections::HashMap;
use std::fs;

/// A line has some 130 bytes, and there are some hundred caches; where the
/// kernel does not merge them or each control group has its own, thousands.
pub const MOST_BYTES: usize = 2 << 20;

/// A cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// Its name; who makes a cache chooses it.
    pub name: String,
    /// What its slabs take, with the room in them that is free, in bytes.
    pub bytes: u64,
}

/// Reads lines such as `dentry 10 42 192 21 1 : tunables 0 0 0 : slabdata 2 2 0`
/// (name, objects that are taken, objects, bytes of each, objects and pages of
/// each slab, slabs). Caches of one name are added up.
pub fn parse(text: &[u8], page_bytes: u64) -> Vec<Cache> {
    let mut caches: HashMap<String, u64> = HashMap::new();
    for line in text.split(|byte| *byte == b'\n') {
        if let Some(Cache { name, bytes }) = cache(&String::from_utf8_lossy(line), page_bytes) {
            let sum = caches.entry(name).or_default();
            *sum = sum.saturating_add(bytes);
        }
    }
    caches.into_iter().map(|(name, bytes)| Cache { name, bytes }).collect()
}

fn cache(line: &str, page_bytes: u64) -> Option<Cache> {
    // A name may contain anything, so what follows it is found from the end.
    let (line, slabs) = line.rsplit_once(" : slabdata ")?;
    let slabs: u64 = slabs.split_whitespace().nth(1)?.parse().ok()?;
    let (line, _) = line.rsplit_once(" : tunables ")?;
    let mut rest = line.trim_end();
    let mut numbers = [0u64; 5];
    for number in numbers.iter_mut().rev() {
        let (before, last) = rest.rsplit_once(' ')?;
        *number = last.parse().ok()?;
        rest = before.trim_end();
    }
    let [_, _, _, _, pages_of_slab] = numbers;
    let name = rest.trim_start();
    if name.is_empty() || name.starts_with('#') {
        return None;
    }
    let bytes = slabs.checked_mul(pages_of_slab)?.checked_mul(page_bytes)?;
    Some(Cache { name: name.to_owned(), bytes })
}

/// The size of a page, in bytes.
pub fn page_bytes() -> u64 {
    // SAFETY: sysconf(3) reads no memory of ours.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).unwrap_or(4096)
}

/// Whether the kernel takes a cache's memory back when memory is short
/// (`SLAB_RECLAIM_ACCOUNT`), as far as it tells.
pub fn is_reclaimable(name: &str) -> bool {
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return false;
    }
    fs::read(format!("/sys/kernel/slab/{name}/reclaim_account"))
        .is_ok_and(|text| text.trim_ascii() == b"1")
}
