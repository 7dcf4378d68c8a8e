//! The memory of another process, as far as it can hold pointers to blocks.

use std::fs::File;
use std::io::{self, BufReader, IoSliceMut, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use procfs::FromBufRead;
use procfs::process::{MMPermissions, MMapPath, MemoryMap, MemoryMaps, Process};

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Bytes of /proc/PID/maps that are read: a million lines.
const MAX_MAPS: u64 = 256 << 20;

/// Flags of an entry of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst).
mod pagemap {
    pub const PRESENT: u64 = 1 << 63;
    pub const SWAPPED: u64 = 1 << 62;
    pub const FILE_OR_SHARED: u64 = 1 << 61;
}

/// A mapping that may hold pointers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its addresses, whole pages.
    pub addresses: Range<u64>,
    /// Whether other processes share it: then it counts that a page is in
    /// memory, else that the process has written to it.
    pub shared: bool,
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
}

impl Memory {
    /// Opens the memory of a process. The files stay those of its present
    /// program: after an exec they read as empty.
    ///
    /// # Errors
    /// If the process is gone, or leakd may not look into it.
    pub fn open(pid: u32) -> io::Result<Self> {
        let number = i32::try_from(pid).map_err(io::Error::other)?;
        let directory = Process::new(number).map_err(io::Error::other)?;
        let mem = directory.mem().map_err(io::Error::other)?;
        let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
        Ok(Self { pid: Pid::from_raw(number), directory, pagemap, mem })
    }

    /// What is mapped, by address, without what cannot hold pointers to blocks:
    /// devices and the kernel's own pages.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn regions(&self) -> io::Result<Vec<Region>> {
        let maps = self.directory.open_relative("maps").map_err(io::Error::other)?;
        let maps = MemoryMaps::from_buf_read(BufReader::new(maps.take(MAX_MAPS)))
            .map_err(io::Error::other)?;
        Ok(maps.iter().filter_map(region).collect())
    }

    /// Which pages of `addresses` are worth reading, by runs. At most 512 pages
    /// are asked for at once.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn populated(
        &self,
        addresses: Range<u64>,
        shared: bool,
        runs: &mut Vec<Range<u64>>,
    ) -> io::Result<()> {
        let mut entries = [0u8; 8 * 512];
        let pages = ((addresses.end - addresses.start) / PAGE).min(512) as usize;
        let entries = &mut entries[..8 * pages];
        self.pagemap.read_exact_at(entries, addresses.start / PAGE * 8)?;
        runs.clear();
        for (number, entry) in entries.chunks_exact(8).enumerate() {
            let entry = u64::from_ne_bytes(entry.try_into().unwrap_or_default());
            let in_memory = entry & (pagemap::PRESENT | pagemap::SWAPPED) != 0;
            if !in_memory || (entry & pagemap::FILE_OR_SHARED != 0 && !shared) {
                continue;
            }
            let page = addresses.start + number as u64 * PAGE;
            match runs.last_mut() {
                Some(run) if run.end == page => run.end += PAGE,
                _ => runs.push(page..page + PAGE),
            }
        }
        Ok(())
    }

    /// Reads words from `address` on; gives how many could be read, in front of
    /// the first that could not.
    pub fn read(&self, address: u64, words: &mut [u64]) -> usize {
        // SAFETY: any bytes are good words, and a word may be seen as its bytes.
        let (_, bytes, _) = unsafe { words.align_to_mut::<u8>() };
        let length = bytes.len();
        let remote = RemoteIoVec { base: address as usize, len: length };
        let read = process_vm_readv(self.pid, &mut [IoSliceMut::new(bytes)], &[remote]);
        // Whole pages or nothing: the rest, which the process itself may not
        // read, is read as a debugger does.
        let mut done = read.unwrap_or(0);
        while done < length {
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

fn region(map: &MemoryMap) -> Option<Region> {
    let shared = map.perms.contains(MMPermissions::SHARED);
    let holds_pointers = match &map.pathname {
        MMapPath::Vdso | MMapPath::Vvar | MMapPath::Vsyscall => false,
        MMapPath::Other(_) => false, // [uprobes] and the like
        MMapPath::Path(path) => {
            !path.starts_with("/dev") || path.starts_with("/dev/shm") || path.starts_with("/dev/zero")
        }
        _ => true,
    };
    // What is shared and read-only, the process cannot have written.
    let written = !shared || map.perms.contains(MMPermissions::WRITE);
    let (begin, end) = map.address;
    (holds_pointers && written && begin < end)
        .then_some(Region { addresses: begin..end, shared })
}
