//! `/tmp/perf-PID.map`: the names that a runtime gives to the code it makes.
//!
//! The format is perf's (tools/perf/Documentation/jit-interface.txt in the
//! kernel): lines of `START SIZE name`, numbers in hex. Anybody can write a
//! file of that name, so only one of the process's own user or of root is
//! read, and never through a symbolic link.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;

use super::demangle::bound;

/// Bytes that are read of a map.
const SIZE_LIMIT: u64 = 64 << 20;
/// Maps that are kept.
const MAPS: usize = 16;
/// A map is looked at again after this time at the earliest.
const RELOAD: Duration = Duration::from_secs(1);
/// Entries before the address that may still reach it: old and new code share
/// addresses when a runtime reuses its memory.
const OVERLAPS: usize = 32;

/// The maps of processes that were asked for.
#[derive(Debug, Default)]
pub struct PerfMaps {
    maps: HashMap<u32, Loaded>,
}

#[derive(Debug)]
struct Loaded {
    map: PerfMap,
    identity: Option<Identity>,
    looked: Instant,
}

type Identity = (u64, u64, u64, i64, i64);

impl PerfMaps {
    /// The name of the code at an address, and the offset in it.
    pub fn find(&mut self, pid: u32, address: u64) -> Option<(String, u64)> {
        let fresh = self.maps.get(&pid).is_some_and(|loaded| loaded.looked.elapsed() < RELOAD);
        if !fresh {
            self.load(pid);
        }
        let (start, name) = self.maps.get(&pid)?.map.find(address)?;
        Some((bound(name).into_owned(), address - start))
    }

    fn load(&mut self, pid: u32) {
        let now = Instant::now();
        let opened = open(pid);
        let identity = opened.as_ref().map(|(_, identity)| *identity);
        if let Some(loaded) = self.maps.get_mut(&pid) {
            loaded.looked = now;
            // What has gone (with its process) or stayed is kept as it is.
            if identity.is_none() || loaded.identity == identity {
                return;
            }
        }
        let map = opened.and_then(|(file, _)| PerfMap::read(file)).unwrap_or_default();
        if self.maps.len() >= MAPS {
            let oldest = self.maps.iter().min_by_key(|(_, loaded)| loaded.looked);
            if let Some(pid) = oldest.map(|(pid, _)| *pid) {
                self.maps.remove(&pid);
            }
        }
        self.maps.insert(pid, Loaded { map, identity, looked: now });
    }
}

/// Opens the map of a process: as the process sees it, or the host.
fn open(pid: u32) -> Option<(File, Identity)> {
    let owner = fs::metadata(format!("/proc/{pid}")).ok()?.uid();
    let inner = inner_pid(pid).unwrap_or(pid);
    let roots = [(format!("/proc/{pid}/root"), inner), ("/".to_owned(), pid)];
    roots.into_iter().find_map(|(root, pid)| open_below(&root, pid, owner))
}

fn open_below(root: &str, pid: u32, owner: u32) -> Option<(File, Identity)> {
    let root = File::open(root).ok()?;
    // Not even a symbolic link on the way: a container's /tmp may be one that
    // leads out of it. A FIFO must not block the open.
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY)
        .mode(Mode::empty())
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let path = format!("tmp/perf-{pid}.map");
    let file = File::from(openat2(&root, path.as_str(), how).ok()?);
    let status = file.metadata().ok()?;
    let trusted = status.is_file() && (status.uid() == owner || status.uid() == 0);
    let identity = (status.dev(), status.ino(), status.size(), status.mtime(), status.mtime_nsec());
    trusted.then_some((file, identity))
}

/// The number that the process has in its innermost pid namespace
/// (`NSpid` in /proc/PID/status, proc(5)).
fn inner_pid(pid: u32) -> Option<u32> {
    let mut status = String::new();
    File::open(format!("/proc/{pid}/status"))
        .ok()?
        .take(64 << 10)
        .read_to_string(&mut status)
        .ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().last()?.parse().ok()
}

/// One map, its names in one string.
#[derive(Debug, Default)]
struct PerfMap {
    /// Start, length, and where the name is; sorted by start, equal starts in
    /// the order of the file.
    entries: Vec<(u64, u64, u32, u32)>,
    text: String,
}

impl PerfMap {
    fn read(file: File) -> Option<Self> {
        let mut bytes = Vec::new();
        file.take(SIZE_LIMIT).read_to_end(&mut bytes).ok()?;
        Some(Self::parse(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Parses a map. Lines that are none are left out, among them a last one
    /// that is still being written.
    fn parse(text: String) -> Self {
        let mut entries = Vec::new();
        let mut begin = 0usize;
        for line in text.split_inclusive('\n') {
            let line_begin = begin;
            begin += line.len();
            let Some(complete) = line.strip_suffix('\n') else { break };
            let mut words = complete.splitn(3, ' ');
            let (Some(start), Some(length), Some(name)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let hex = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok();
            let (Some(start), Some(length)) = (hex(start), hex(length)) else { continue };
            let name_at = line_begin + complete.len() - name.len();
            // Bounded by SIZE_LIMIT (times three for replaced bytes).
            entries.push((start, length, name_at as u32, name.len() as u32));
        }
        entries.sort_by_key(|entry| entry.0);
        Self { entries, text }
    }

    /// Start and name of the code at an address; the newest, if several are.
    fn find(&self, address: u64) -> Option<(u64, &str)> {
        let behind = self.entries.partition_point(|entry| entry.0 <= address);
        let candidates = &self.entries[behind.saturating_sub(OVERLAPS)..behind];
        let (start, _, at, length) =
            candidates.iter().rev().find(|(start, length, _, _)| address - start < *length)?;
        let name = self.text.get(*at as usize..(*at + *length) as usize)?;
        Some((*start, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Check that names are found, the newest first, and rubbish is skipped.
    #[test]
    fn parsing() {
        let map = PerfMap::parse(
            "1000 10 old\nrubbish\n\n0x2000 20 LazyCompile:*main app.js:1:2\n1000 8 new\n\
             zz 1 bad\nffffffffffffffff ff edge\n3000 10 unfinished"
                .to_owned(),
        );
        assert_eq!(map.find(0x1004), Some((0x1000, "new")));
        assert_eq!(map.find(0x1008), Some((0x1000, "old")));
        assert_eq!(map.find(0x1010), None);
        assert_eq!(map.find(0x201f), Some((0x2000, "LazyCompile:*main app.js:1:2")));
        assert_eq!(map.find(u64::MAX), Some((u64::MAX, "edge")));
        assert_eq!(map.find(0x3000), None, "its line is not complete");
        assert_eq!(map.find(0), None);
    }

    /// Check that a map is read for a real process, but not through a
    /// symbolic link, and not from a user that is neither its own nor root.
    #[test]
    fn real_files() {
        let pid = std::process::id();
        let path = format!("/tmp/perf-{pid}.map");
        let target = format!("/tmp/perf-{pid}.map.target");
        fs::write(&target, "1000 10 linked\n").unwrap();
        let _ = fs::remove_file(&path);
        symlink(&target, &path).unwrap();
        assert_eq!(PerfMaps::default().find(pid, 0x1000), None, "a symbolic link");
        fs::remove_file(&path).unwrap();

        fs::write(&path, "1000 10 compiled\n").unwrap();
        let mut maps = PerfMaps::default();
        assert_eq!(maps.find(pid, 0x1003), Some(("compiled".to_owned(), 3)));
        fs::remove_file(&path).unwrap();
        assert_eq!(maps.find(pid, 0x1003), Some(("compiled".to_owned(), 3)), "kept when gone");

        nix::unistd::mkfifo(path.as_str(), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        assert_eq!(PerfMaps::default().find(pid, 0x1000), None, "a FIFO");
        fs::remove_file(&path).unwrap();

        fs::write(&path, "1000 10 foreign\n").unwrap();
        std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
        assert_eq!(PerfMaps::default().find(pid, 0x1000), None, "another user's");
        fs::remove_file(&path).unwrap();
        fs::remove_file(&target).unwrap();
    }
}
