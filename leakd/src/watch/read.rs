//! What is read of one process.
//!
//! `status` has memory, threads and name in one file, for about 10 us. What
//! costs more (`smaps_rollup` walks all page tables) is read of suspects only.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::cgroup::{self, Group};

/// The kernel's is about 1.5 KiB.
const STATUS_BYTES: usize = 8 << 10;
/// Of other files of a process.
const FILE_BYTES: u64 = 16 << 10;
/// Of `maps`, until the heap is found: it is among the first.
const MAPS_BYTES: u64 = 64 << 10;
/// Characters of names and paths that are kept.
const NAME_LIMIT: usize = 4096;

/// Who a process is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its number, in leakd's pid namespace.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub start_time: u64,
    /// Its name, as the kernel has it.
    pub comm: String,
    /// The path of its program; empty if that cannot be read.
    pub exe: String,
    /// Its real user.
    pub uid: u32,
    /// Control group, unit, container.
    pub group: Group,
}

impl Identity {
    /// How long it has been running, at `boot` after the boot.
    pub fn age(&self, boot: Duration) -> Duration {
        boot.saturating_sub(ticks(self.start_time))
    }
}

/// What changes of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Resident anonymous memory, in bytes.
    pub anonymous_bytes: u64,
    /// All resident memory, in bytes.
    pub resident_bytes: u64,
    /// In swap, in bytes.
    pub swap_bytes: u64,
    /// Private writable mappings, in bytes.
    pub data_bytes: u64,
    /// Threads.
    pub threads: u32,
}

/// What is read of suspects only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// The heap of brk(2), in bytes.
    pub heap_bytes: Option<u64>,
    /// PSS, in bytes.
    pub proportional_bytes: Option<u64>,
}

/// Why nothing was read.
#[derive(Debug)]
pub enum Unreadable {
    /// It has ended, or does so right now, or we may not look.
    Gone,
    /// It has no memory.
    KernelThread,
}

/// The parent of all kernel threads (kernel/kthread.c), where they are seen: outside
/// of containers. A thread of the kernel has no memory, nor has a process that exits.
const KTHREADD: u64 = 2;

/// An open `/proc/PID/status`. It means one process for as long as it lives.
#[derive(Debug)]
pub struct StatusFile(File);

impl StatusFile {
    /// Opens that of a process.
    pub fn open(pid: u32) -> io::Result<Self> {
        File::open(format!("/proc/{pid}/status")).map(Self)
    }
}

/// Reads status files into one buffer.
#[derive(Debug)]
pub struct Reader {
    buffer: Box<[u8]>,
    name: String,
    uid: u32,
}

impl Default for Reader {
    fn default() -> Self {
        Self { buffer: vec![0; STATUS_BYTES].into(), name: String::new(), uid: 0 }
    }
}

impl Reader {
    /// Reads a process's figures.
    pub fn read(&mut self, file: &StatusFile) -> Result<Figures, Unreadable> {
        let mut filled = 0;
        loop {
            match file.0.read_at(&mut self.buffer[filled..], filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Unreadable::Gone),
            }
            // The kernel gives all of it at once, if there is room.
            if self.buffer[..filled].ends_with(b"\n") || filled == self.buffer.len() {
                break;
            }
        }
        let status = Status::parse(&self.buffer[..filled]);
        self.uid = status.uid;
        self.name.clear();
        self.name.push_str(&String::from_utf8_lossy(status.name));
        match status.figures {
            Some(figures) => Ok(figures),
            None if status.is_kernel_thread => Err(Unreadable::KernelThread),
            // A zombie, or on its way: its memory is given back first.
            None => Err(Unreadable::Gone),
        }
    }

    /// Reads the figures of a process whose file was not kept open.
    pub fn read_again(&mut self, identity: &Identity) -> Result<Figures, Unreadable> {
        let file = StatusFile::open(identity.pid).map_err(|_| Unreadable::Gone)?;
        let figures = self.read(&file)?;
        let start = start_time(identity.pid).ok_or(Unreadable::Gone)?;
        if start == identity.start_time { Ok(figures) } else { Err(Unreadable::Gone) }
    }

    /// The name that was read last, escaped as the kernel does it there.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The user that was read last.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Whether the name that was read last is this process's.
    pub fn is_named(&self, identity: &Identity) -> bool {
        // Escaped or not UTF-8: left to the review.
        self.name.contains(['\\', char::REPLACEMENT_CHARACTER]) || self.name == identity.comm
    }
}

/// Fields of a status file.
#[derive(Debug, Default)]
struct Status<'a> {
    name: &'a [u8],
    uid: u32,
    is_kernel_thread: bool,
    figures: Option<Figures>,
}

impl<'a> Status<'a> {
    fn parse(bytes: &'a [u8]) -> Self {
        let mut status = Self::default();
        let mut figures = Figures::default();
        let mut has_memory = false;
        for line in bytes.split(|byte| *byte == b'\n') {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (key, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            let kib = || number(value).saturating_mul(1024);
            match key {
                b"Name" => status.name = value,
                b"Pid" | b"PPid" => status.is_kernel_thread |= number(value) == KTHREADD,
                b"Uid" => status.uid = number(value) as u32,
                b"VmRSS" => {
                    figures.resident_bytes = kib();
                    has_memory = true;
                }
                b"RssAnon" => figures.anonymous_bytes = kib(),
                b"VmData" => figures.data_bytes = kib(),
                b"VmSwap" => figures.swap_bytes = kib(),
                b"Threads" => {
                    figures.threads = number(value) as u32;
                    break; // Nothing of interest comes after it.
                }
                _ => {}
            }
        }
        status.figures = has_memory.then_some(figures);
        status
    }
}

/// The number that a text begins with.
fn number(text: &[u8]) -> u64 {
    text.iter()
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
}

/// The pids of all processes.
pub fn pids() -> io::Result<Vec<u32>> {
    let mut pids = Vec::with_capacity(512);
    for entry in fs::read_dir("/proc")? {
        // One that vanished while it was listed is no reason to give up.
        let Ok(entry) = entry else { continue };
        if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            pids.push(pid);
        }
    }
    Ok(pids)
}

/// Time since boot, sleep included, as start times count.
pub fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// A time in clock ticks; USER_HZ is 100 on all architectures that matter.
fn ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks.saturating_mul(10))
}

/// When a process started, in clock ticks since boot.
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = read_file(pid, "stat", FILE_BYTES)?;
    // The name is in parentheses and may contain any others.
    let after = &stat[stat.iter().rposition(|byte| *byte == b')')? + 1..];
    let field = after.split(|byte| *byte == b' ').filter(|field| !field.is_empty()).nth(19)?;
    Some(number(field))
}

/// Who a process is; `None` if it is gone. `uid` and `comm` stand in for what
/// cannot be read.
pub fn identify(pid: u32, comm: &str, uid: u32) -> Option<Identity> {
    let start_time = start_time(pid)?;
    let directory = format!("/proc/{pid}");
    let limited = |text: &str| text.chars().take(NAME_LIMIT).collect::<String>();
    let exe = fs::read_link(format!("{directory}/exe"))
        .map(|path| limited(&path.to_string_lossy()))
        .unwrap_or_default();
    let comm = read_file(pid, "comm", 64).map_or_else(
        || comm.to_owned(),
        |name| String::from_utf8_lossy(name.strip_suffix(b"\n").unwrap_or(&name)).into_owned(),
    );
    let uid = fs::metadata(format!("{directory}/task")).map_or(uid, |data| data.uid());
    let uid = real_uid(pid).unwrap_or(uid);
    let group = read_file(pid, "cgroup", FILE_BYTES)
        .map(|text| cgroup::parse(&String::from_utf8_lossy(&text)))
        .unwrap_or_default();
    Some(Identity { pid, start_time, comm, exe, uid, group })
}

fn real_uid(pid: u32) -> Option<u32> {
    let bytes = read_file(pid, "status", FILE_BYTES)?;
    Some(Status::parse(&bytes).uid)
}

/// What is read of suspects only.
pub fn detail(pid: u32) -> Option<Detail> {
    let heap_bytes = read_file(pid, "maps", MAPS_BYTES).and_then(|maps| {
        let maps = String::from_utf8_lossy(&maps);
        let heap = maps.lines().find(|line| line.ends_with("[heap]"))?;
        let (begin, end) = heap.split_once(' ')?.0.split_once('-')?;
        let address = |text| u64::from_str_radix(text, 16).ok();
        address(end)?.checked_sub(address(begin)?)
    });
    let proportional_bytes = read_file(pid, "smaps_rollup", FILE_BYTES).and_then(|text| {
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        Some(number(line.trim_ascii_start().as_bytes()).saturating_mul(1024))
    });
    Some(Detail { heap_bytes, proportional_bytes })
}

/// Open descriptors of a process: the size of the directory, from 6.2 on.
pub fn descriptors(pid: u32) -> Option<u64> {
    fs::metadata(format!("/proc/{pid}/fd")).ok().map(|data| data.len()).filter(|count| *count > 0)
}

fn read_file(pid: u32, name: &str, limit: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(format!("/proc/{pid}/{name}")).ok()?;
    file.take(limit).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a status file is read, whatever the name of its process.
    #[test]
    fn status() {
        let text = b"Name:\ta\\nVmRSS:\xff\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t9\n\
            Uid:\t33\t0\t0\t0\nVmPeak:\t    9 kB\nVmRSS:\t     300 kB\nRssAnon:\t  100 kB\n\
            RssFile:\t  200 kB\nVmData:\t   400 kB\nVmSwap:\t       5 kB\nThreads:\t3\n";
        let status = Status::parse(text);
        assert_eq!(status.name, b"a\\nVmRSS:\xff");
        assert_eq!(status.uid, 33);
        let figures = Figures {
            anonymous_bytes: 100 << 10,
            resident_bytes: 300 << 10,
            swap_bytes: 5 << 10,
            data_bytes: 400 << 10,
            threads: 3,
        };
        assert_eq!(status.figures, Some(figures));
        let zombie = Status::parse(b"Name:\tx\nState:\tZ (zombie)\nThreads:\t1\n");
        assert!(!zombie.is_kernel_thread && zombie.figures.is_none());
        // A process that exits has no memory either, for a moment.
        let exits = Status::parse(b"Name:\tx\nState:\tR (running)\nPid:\t20\nPPid:\t9\n");
        assert!(!exits.is_kernel_thread && exits.figures.is_none());
        let thread = Status::parse(b"Name:\tx\nState:\tI (idle)\nPid:\t20\nPPid:\t2\n");
        assert!(thread.is_kernel_thread && thread.figures.is_none());
        assert!(Status::parse(b"Name:\tkthreadd\nPid:\t2\nPPid:\t0\n").is_kernel_thread);
        assert!(Status::parse(b"").figures.is_none());
        assert_eq!(number(b"99999999999999999999999"), u64::MAX);
    }

    /// Check that this process is told from others and read right.
    #[test]
    fn own_process() {
        let pid = std::process::id();
        let identity = identify(pid, "", 0).expect("it runs");
        assert_eq!(identity.uid, nix::unistd::getuid().as_raw());
        assert_eq!(identity.exe, std::env::current_exe().expect("a path").to_string_lossy());
        assert!(identity.start_time > 0);
        assert!(identity.age(since_boot()) < Duration::from_secs(3600));
        assert!(pids().expect("/proc").contains(&pid));
        let figures = Reader::default()
            .read(&StatusFile::open(pid).expect("it runs"))
            .expect("it has memory");
        let threads = fs::read_dir("/proc/self/task").expect("/proc").count() as i64;
        assert!((i64::from(figures.threads) - threads).abs() <= 4);
        assert!(figures.anonymous_bytes > 0);
        assert!(figures.resident_bytes >= figures.anonymous_bytes);
        let detail = detail(pid).expect("it runs");
        assert!(detail.proportional_bytes.expect("smaps_rollup") > 0);
    }
}
