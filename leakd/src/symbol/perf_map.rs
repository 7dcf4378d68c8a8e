//! `/tmp/perf-PID.map`: the names that a runtime gives to the code it makes.
//!
//! The format is perf's (tools/perf/Documentation/jit-interface.txt in the
//! kernel): lines of `START SIZE name`, numbers in hex. Anybody can write a
//! file of that name, so only one of the process's own user or of root is
//! read, and never through a symbolic link.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, Metadata};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;

use super::demangle::bound;

/// Bytes that are read of a map.
const SIZE_LIMIT: u64 = 64 << 20;
/// Maps that are kept.
const MAPS: usize = 16;
/// A map is looked at again after this time at the earliest. Only what was
/// added is read then.
const RELOAD: Duration = Duration::from_millis(10);
/// Pieces of code of one map that are kept.
const PIECES: usize = 1 << 20;

/// The maps of processes that were asked for.
#[derive(Debug, Default)]
pub struct PerfMaps {
    maps: HashMap<u32, Loaded>,
}

#[derive(Debug)]
struct Loaded {
    map: PerfMap,
    /// Device and inode.
    file: Option<(u64, u64)>,
    /// Bytes that have been read: whole lines.
    read: u64,
    looked: Instant,
}

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
        if self.maps.len() >= MAPS && !self.maps.contains_key(&pid) {
            let oldest = self.maps.iter().min_by_key(|(_, loaded)| loaded.looked);
            if let Some(pid) = oldest.map(|(pid, _)| *pid) {
                self.maps.remove(&pid);
            }
        }
        let empty = || Loaded { map: PerfMap::default(), file: None, read: 0, looked: now };
        let loaded = self.maps.entry(pid).or_insert_with(empty);
        loaded.looked = now;
        // What has gone, with its process, is kept as it is.
        let Some((file, status)) = opened else { return };
        let identity = Some((status.dev(), status.ino()));
        if loaded.file != identity || status.size() < loaded.read {
            *loaded = Loaded { file: identity, ..empty() };
        }
        if loaded.add(file).is_none() {
            tracing::debug!(pid, "a perf map cannot be read");
        }
    }
}

impl Loaded {
    /// Reads what was added to the file.
    fn add(&mut self, file: File) -> Option<()> {
        let mut bytes = Vec::new();
        let left = SIZE_LIMIT.saturating_sub(self.read);
        let mut file = file;
        file.seek(SeekFrom::Start(self.read)).ok()?;
        file.take(left).read_to_end(&mut bytes).ok()?;
        // The last line may still be being written.
        bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1));
        self.read += bytes.len() as u64;
        self.map.add(&String::from_utf8_lossy(&bytes));
        Some(())
    }
}

/// Opens the map of a process: as the process sees it, or the host.
fn open(pid: u32) -> Option<(File, Metadata)> {
    let owner = fs::metadata(format!("/proc/{pid}")).ok()?.uid();
    let inner = inner_pid(pid).unwrap_or(pid);
    let roots = [(format!("/proc/{pid}/root"), inner), ("/".to_owned(), pid)];
    roots.into_iter().find_map(|(root, pid)| open_below(&root, pid, owner))
}

fn open_below(root: &str, pid: u32, owner: u32) -> Option<(File, Metadata)> {
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
    trusted.then_some((file, status))
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

/// One map.
#[derive(Debug, Default)]
struct PerfMap {
    /// Pieces of code that do not overlap, by their first address.
    pieces: BTreeMap<u64, Piece>,
    /// The names, one behind the other.
    text: String,
}

/// A piece of code, or what later code has left of it.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// First address behind it.
    end: u64,
    /// Where the code began when it was whole.
    start: u64,
    /// Where its name is in the text, and its length.
    name: (u32, u32),
}

impl PerfMap {
    /// Adds lines. What is none is left out.
    fn add(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line.splitn(3, ' ');
            let (Some(start), Some(length), Some(name)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let hex = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok();
            let (Some(start), Some(length)) = (hex(start), hex(length)) else { continue };
            self.put(start, start.saturating_add(length), name);
        }
    }

    /// New code takes the place of what was there: runtimes use their memory
    /// again and say so only by the order of the lines.
    fn put(&mut self, start: u64, end: u64, name: &str) {
        let name = bound(name);
        let (Ok(at), Ok(length)) = (u32::try_from(self.text.len()), u32::try_from(name.len()))
        else {
            return;
        };
        if start >= end || self.pieces.len() + 2 > PIECES {
            return;
        }
        // What begins before it and reaches into it, or past it.
        if let Some((&before, &piece)) = self.pieces.range(..start).next_back()
            && piece.end > start
        {
            self.pieces.insert(before, Piece { end: start, ..piece });
            if piece.end > end {
                self.pieces.insert(end, piece);
            }
        }
        // What begins in it: each piece goes once, so that this costs little.
        while let Some((&inside, &piece)) = self.pieces.range(start..end).next() {
            self.pieces.remove(&inside);
            if piece.end > end {
                self.pieces.insert(end, piece);
            }
        }
        self.text.push_str(&name);
        self.pieces.insert(start, Piece { end, start, name: (at, length) });
    }

    /// Start and name of the code at an address.
    fn find(&self, address: u64) -> Option<(u64, &str)> {
        let (_, piece) = self.pieces.range(..=address).next_back()?;
        let (at, length) = (piece.name.0 as usize, piece.name.1 as usize);
        let name = self.text.get(at..at + length)?;
        (address < piece.end).then_some((piece.start, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    /// Check that names are found, the newest first, and rubbish is skipped.
    #[test]
    fn parsing() {
        let mut map = PerfMap::default();
        map.add(
            "1000 10 old\nrubbish\n\n0x2000 20 LazyCompile:*main app.js:1:2\n1000 8 new\n\
             zz 1 bad\nfffffffffffffffe ff edge\n4000 0 empty\n",
        );
        assert_eq!(map.find(0x1004), Some((0x1000, "new")));
        assert_eq!(map.find(0x1008), Some((0x1000, "old")));
        assert_eq!(map.find(0x1010), None);
        assert_eq!(map.find(0x201f), Some((0x2000, "LazyCompile:*main app.js:1:2")));
        assert_eq!(map.find(u64::MAX - 1), Some((u64::MAX - 1, "edge")));
        assert_eq!(map.find(0), None);
        // Around, inside, over the edges, over all.
        map.add("3100 40 small\n3000 200 around\n3080 10 inside\n2ff0 20 left\n31f0 20 right\n");
        let names = [0x2ff0, 0x300f, 0x3010, 0x307f, 0x3080, 0x308f, 0x3090, 0x3120, 0x31ef];
        let found = names.map(|address| map.find(address).map_or("", |(_, name)| name));
        let around = "around";
        let inside = ["inside"; 2];
        assert_eq!(
            found,
            ["left", "left", around, around, inside[0], inside[1], around, around, around]
        );
        assert_eq!(map.find(0x3120), Some((0x3000, "around")), "where it began");
        assert_eq!(map.find(0x31f0), Some((0x31f0, "right")));
        map.add("0 ffffffffffffffff all\n");
        assert_eq!(map.pieces.len(), 1);
        assert_eq!(map.find(0x3085), Some((0, "all")));
    }

    /// Check that a large map of pieces that cut each other takes no more than
    /// it may.
    #[test]
    fn bounded() {
        let mut map = PerfMap::default();
        let name = "n".repeat(2000);
        for at in 0..2 * PIECES as u64 {
            map.put(at * 16, at * 16 + 8, if at % 1000 == 0 { &name } else { "x" });
        }
        assert!(map.pieces.len() <= PIECES);
        assert_eq!(map.find(0).map(|(_, name)| name.len() < 2000), Some(true));
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
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"1000 10 again\n2000 10 unfin").unwrap();
        std::thread::sleep(2 * RELOAD);
        assert_eq!(maps.find(pid, 0x1003), Some(("again".to_owned(), 3)), "what was added");
        assert_eq!(maps.find(pid, 0x2000), None, "its line is not complete");
        file.write_all(b"ished\n").unwrap();
        std::thread::sleep(2 * RELOAD);
        assert_eq!(maps.find(pid, 0x2000), Some(("unfinished".to_owned(), 0)));
        fs::remove_file(&path).unwrap();
        std::thread::sleep(2 * RELOAD);
        assert_eq!(maps.find(pid, 0x1003), Some(("again".to_owned(), 3)), "kept when gone");

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
