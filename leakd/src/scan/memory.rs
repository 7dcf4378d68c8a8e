//! The memory of another process, as far as it can hold pointers to blocks.

use std::fs::File;
use std::io::{self, BufReader, IoSliceMut, Read};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use procfs::FromBufRead;
use procfs::process::{MMPermissions, MMapPath, MemoryMap, MemoryMaps, Process};

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Bytes of /proc/PID/maps that are read: a million lines.
const MAX_MAPS: u64 = 256 << 20;

/// What a mapping is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The stack of the first thread.
    Stack,
    /// What brk(2) made.
    Heap,
    /// Memory without a file.
    Anonymous,
    /// Variables of the C library.
    CLibrary,
    /// A file, or memory that other processes share.
    Other,
}

/// A mapping that may hold pointers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Its addresses, whole pages.
    pub addresses: Range<u64>,
    /// What it is for.
    pub kind: Kind,
    /// Whether other processes share it: then it counts that a page is in
    /// memory, else that the process has written to it.
    pub shared: bool,
}

/// Which pages are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pages {
    /// Those in memory or in swap.
    Populated,
    /// Those in memory.
    Resident,
}

/// The memory of a process.
///
/// It is read where it is, while the process runs. Pages that were never
/// written to are not touched: they hold no pointers to blocks, and to read
/// them would make the kernel give the process tables for them.
#[derive(Debug)]
pub struct Memory {
    pid: Pid,
    directory: Process,
    pagemap: File,
    mem: File,
    /// Whether the kernel has PAGEMAP_SCAN.
    scans: bool,
}

impl Memory {
    /// Opens the memory of a process. The files stay those of its present
    /// program: after an exec they read as empty.
    ///
    /// # Errors
    /// If the process is gone, or leakd may not look into it.
    pub fn open(pid: u32) -> io::Result<Self> {
        let number = i32::try_from(pid).map_err(io::Error::other)?;
        let directory = Process::new(number).map_err(plain)?;
        let mem = directory.mem().map_err(plain)?;
        let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
        let mut memory = Self { pid: Pid::from_raw(number), directory, pagemap, mem, scans: false };
        memory.scans =
            memory.scan_pagemap(0..PAGE, false, Pages::Populated, &mut Vec::new()).is_ok();
        Ok(memory)
    }

    /// What is mapped, by address, without what cannot hold pointers to blocks:
    /// devices and the kernel's own pages.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn mappings(&self) -> io::Result<Vec<Mapping>> {
        let maps = self.directory.open_relative("maps").map_err(plain)?;
        let maps = MemoryMaps::from_buf_read(BufReader::new(maps.take(MAX_MAPS))).map_err(plain)?;
        let mappings: Vec<Mapping> = maps.iter().filter_map(mapping).collect();
        if mappings.is_empty() || !self.is_same() {
            return Err(gone());
        }
        Ok(mappings)
    }

    /// Whether the process still has the memory that was opened: it has neither
    /// ended nor replaced its program.
    pub fn is_same(&self) -> bool {
        // Of memory that has no user any more, not even the end can be read: any
        // address gives 0 bytes, where one that is not mapped gives an error.
        let mut byte = [0u8; 1];
        match self.mem.read_at(&mut byte, PAGE) {
            Ok(0) => false,
            Ok(_) => true,
            Err(error) => error.raw_os_error() == Some(libc::EIO),
        }
    }

    /// Which pages of a mapping are worth reading, by runs, added to `runs`.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn populated(&self, mapping: &Mapping, runs: &mut Vec<Range<u64>>) -> io::Result<()> {
        self.pages(mapping, Pages::Populated, runs)
    }

    /// The same without pages in swap.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn resident(&self, mapping: &Mapping, runs: &mut Vec<Range<u64>>) -> io::Result<()> {
        self.pages(mapping, Pages::Resident, runs)
    }

    fn pages(&self, mapping: &Mapping, which: Pages, runs: &mut Vec<Range<u64>>) -> io::Result<()> {
        let Mapping { addresses, shared, .. } = mapping;
        if self.scans {
            return self.scan_pagemap(addresses.clone(), *shared, which, runs);
        }
        self.read_pagemap(addresses.clone(), *shared, which, runs)
    }

    /// By an ioctl(2) that skips what has no tables (Linux 6.7).
    fn scan_pagemap(
        &self,
        addresses: Range<u64>,
        shared: bool,
        which: Pages,
        runs: &mut Vec<Range<u64>>,
    ) -> io::Result<()> {
        let mut found = [PageRegion::default(); 512];
        let mut start = addresses.start;
        let without = if shared { 0 } else { category::FILE | category::ZERO_PAGE };
        while start < addresses.end {
            let mut argument = ScanArgument {
                size: size_of::<ScanArgument>() as u64,
                start,
                end: addresses.end,
                vector: found.as_mut_ptr() as u64,
                vector_length: found.len() as u64,
                category_inverted: without,
                category_mask: without,
                category_any_of: match which {
                    Pages::Populated => category::PRESENT | category::SWAPPED,
                    Pages::Resident => category::PRESENT,
                },
                // Runs end where a category changes that is asked for: none does.
                return_mask: category::WRITE_PROTECTABLE,
                ..ScanArgument::default()
            };
            // SAFETY: PAGEMAP_SCAN reads and writes the structure and writes at
            // most `vector_length` elements to `vector`, which has as many. It
            // changes nothing of the process: no flag asks for that.
            let count =
                unsafe { libc::ioctl(self.pagemap.as_raw_fd(), PAGEMAP_SCAN, &raw mut argument) };
            let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
            for region in &found[..count.min(found.len())] {
                push(runs, region.start..region.end);
            }
            if argument.walk_end <= start {
                break;
            }
            start = argument.walk_end;
        }
        Ok(())
    }

    /// By an entry for each page.
    fn read_pagemap(
        &self,
        addresses: Range<u64>,
        shared: bool,
        which: Pages,
        runs: &mut Vec<Range<u64>>,
    ) -> io::Result<()> {
        let mut entries = vec![0u8; 8 << 13];
        let flags = match which {
            Pages::Populated => entry::PRESENT | entry::SWAPPED,
            Pages::Resident => entry::PRESENT,
        };
        let mut page = addresses.start;
        while page < addresses.end {
            let pages = ((addresses.end - page) / PAGE).min(1 << 13) as usize;
            let read = self.pagemap.read_at(&mut entries[..8 * pages], page / PAGE * 8)?;
            if read < 8 {
                break; // beyond user space
            }
            for entry in entries[..read].chunks_exact(8) {
                let entry = u64::from_ne_bytes(entry.try_into().unwrap_or_default());
                let in_memory = entry & flags != 0;
                if in_memory && (shared || entry & entry::FILE_OR_SHARED == 0) {
                    push(runs, page..page + PAGE);
                }
                page += PAGE;
            }
        }
        Ok(())
    }

    /// Reads words of `ranges`, one behind the other; gives how many could be
    /// read, in front of the first that could not.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn read(&self, ranges: &[Range<u64>], words: &mut [u64]) -> io::Result<usize> {
        // SAFETY: any bytes are good words, and a word may be seen as its bytes.
        let (_, bytes, _) = unsafe { words.align_to_mut::<u8>() };
        let remote: Vec<RemoteIoVec> = ranges
            .iter()
            .map(|range| RemoteIoVec {
                base: range.start as usize,
                len: (range.end - range.start) as usize,
            })
            .collect();
        match process_vm_readv(self.pid, &mut [IoSliceMut::new(bytes)], &remote) {
            Ok(count) => Ok(count / 8),
            Err(Errno::ESRCH) => Err(gone()),
            Err(_) => Ok(0),
        }
    }

    /// Reads words as a debugger does, also where the process itself may not.
    pub fn read_as_debugger(&self, address: u64, words: &mut [u64]) -> usize {
        // SAFETY: any bytes are good words, and a word may be seen as its bytes.
        let (_, bytes, _) = unsafe { words.align_to_mut::<u8>() };
        let mut done = 0;
        while done < bytes.len() {
            match self.mem.read_at(&mut bytes[done..], address + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        done / 8
    }
}

/// The procfs crate's error as what it stands for.
fn plain(error: procfs::ProcError) -> io::Error {
    match error {
        procfs::ProcError::NotFound(_) => gone(),
        procfs::ProcError::PermissionDenied(_) => io::ErrorKind::PermissionDenied.into(),
        procfs::ProcError::Io(error, _) => error,
        other => io::Error::other(other),
    }
}

/// The error for a process whose memory is not there any more.
fn gone() -> io::Error {
    io::Error::from_raw_os_error(libc::ESRCH)
}

fn push(runs: &mut Vec<Range<u64>>, range: Range<u64>) {
    match runs.last_mut() {
        Some(run) if run.end == range.start => run.end = range.end,
        _ => runs.push(range),
    }
}

fn mapping(map: &MemoryMap) -> Option<Mapping> {
    let shared = map.perms.contains(MMPermissions::SHARED);
    let kind = match &map.pathname {
        MMapPath::Vdso | MMapPath::Vvar | MMapPath::Vsyscall => return None,
        // [uprobes] and the like; names that the process gave are `Anon`.
        MMapPath::Other(name) if !name.starts_with("anon") => return None,
        MMapPath::Path(path) if is_device(path) => return None,
        MMapPath::Stack => Kind::Stack,
        MMapPath::Heap => Kind::Heap,
        MMapPath::Path(path) if is_c_library(path) => Kind::CLibrary,
        MMapPath::Path(_) | MMapPath::Vsys(_) => Kind::Other,
        _ if shared => Kind::Other,
        _ => Kind::Anonymous,
    };
    // What is shared and read-only, the process cannot have written.
    let written = !shared || map.perms.contains(MMPermissions::WRITE);
    let (begin, end) = map.address;
    (written && begin < end).then_some(Mapping { addresses: begin..end, kind, shared })
}

/// Whether a file is glibc, by its name: `libc.so.6`, `libc-2.31.so`.
pub fn is_c_library(path: &std::path::Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("libc.so") || name.starts_with("libc-2.")
}

/// Memory of a device; to read it may have effects.
fn is_device(path: &std::path::Path) -> bool {
    path.starts_with("/dev") && !path.starts_with("/dev/shm") && !path.starts_with("/dev/zero")
}

/// Flags of an entry of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst).
mod entry {
    pub const PRESENT: u64 = 1 << 63;
    pub const SWAPPED: u64 = 1 << 62;
    pub const FILE_OR_SHARED: u64 = 1 << 61;
}

/// `PAGE_IS_...` of linux/fs.h.
mod category {
    pub const WRITE_PROTECTABLE: u64 = 1 << 0;
    pub const FILE: u64 = 1 << 2;
    pub const PRESENT: u64 = 1 << 3;
    pub const SWAPPED: u64 = 1 << 4;
    pub const ZERO_PAGE: u64 = 1 << 5;
}

/// `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: libc::Ioctl = 0xc060_6610;

/// `struct pm_scan_arg` of linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct ScanArgument {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vector: u64,
    vector_length: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_any_of: u64,
    return_mask: u64,
}

const _: () = assert!(size_of::<ScanArgument>() == 96);

/// `struct page_region` of linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that both ways to ask find the same pages of this process: those
    /// that were written to, also within a terabyte of which there is nothing.
    #[test]
    fn both_ways_find_what_was_written() {
        let (bytes, length) = (1usize << 40, 8usize);
        // SAFETY: a new mapping at an address that the kernel chooses.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        assert_ne!(base, libc::MAP_FAILED);
        let base = base as u64;
        let written = [0, 5 << 12, 6 << 12, 1 << 39, (1 << 40) - PAGE];
        for offset in written {
            // SAFETY: within the mapping; in a page of its own, whole pages apart.
            unsafe {
                libc::madvise((base + offset) as *mut _, PAGE as usize, libc::MADV_NOHUGEPAGE);
                ((base + offset) as *mut u64).write_volatile(length as u64);
            }
        }
        let memory = Memory::open(std::process::id()).unwrap();
        let mapping =
            Mapping { addresses: base..base + (1 << 40), kind: Kind::Anonymous, shared: false };
        let mut runs = Vec::new();
        memory.populated(&mapping, &mut runs).unwrap();
        let holds = |offset: &u64| runs.iter().any(|run| run.contains(&(base + offset)));
        assert!(written.iter().all(holds), "{runs:x?}");
        let pages: u64 = runs.iter().map(|run| (run.end - run.start) / PAGE).sum();
        assert!(pages < 5000, "{runs:x?}");
        for window in [0u64, 1 << 39] {
            let part = base + window..base + window + (64 << 20);
            let (mut scanned, mut read) = (Vec::new(), Vec::new());
            if memory.scans {
                memory.scan_pagemap(part.clone(), false, Pages::Populated, &mut scanned).unwrap();
            }
            memory.read_pagemap(part, false, Pages::Populated, &mut read).unwrap();
            assert!(!memory.scans || scanned == read, "{scanned:x?} {read:x?}");
        }
        let mut words = [0u64; 2];
        let ranges = [base + (1 << 39)..base + (1 << 39) + 8, base..base + 8];
        assert_eq!(memory.read(&ranges, &mut words).unwrap(), 2);
        assert_eq!(words, [length as u64; 2]);
        // SAFETY: the mapping made above, which nobody uses any more.
        unsafe { libc::munmap(base as *mut _, bytes) };
        assert_eq!(memory.read(&ranges, &mut words).unwrap(), 0);
        assert_eq!(memory.read_as_debugger(base, &mut words), 0);
        assert!(memory.is_same());
    }

    /// Check that a process that has replaced its program, or ended, is told.
    #[test]
    fn exec_and_end_are_told() {
        use std::io::{BufRead, Write};
        let mut child = std::process::Command::new("sh")
            .args(["-c", "echo a; read x; exec sh -c 'echo b; read y'"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        lines.next().unwrap().unwrap();
        let before = Memory::open(child.id()).unwrap();
        assert!(before.is_same() && !before.mappings().unwrap().is_empty());
        child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        lines.next().unwrap().unwrap();
        assert!(!before.is_same());
        assert!(before.mappings().is_err());
        let after = Memory::open(child.id()).unwrap();
        assert!(after.is_same());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!after.is_same());
        assert!(after.mappings().is_err());
    }
}
