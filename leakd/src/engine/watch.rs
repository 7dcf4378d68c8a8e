//! Which processes map code: told by the kernel, instead of looked for.
//!
//! One perf event a CPU, of the kind that counts nothing, reports each
//! executable mapping of the machine (PERF_RECORD_MMAP2: mmap, mprotect, exec).
//! It costs whoever maps code about 0.3 us a mapping and nobody else anything.
//! munmap and mremap are not reported; what they leave behind can mislead no
//! walk before something else is mapped at the same place.

use std::io;

use perf_event::data::{Mmap2, Record};
use perf_event::events::Software;
use perf_event::{Builder, Clock, SampleFlag, Sampler};

use crate::bpf::sys;

/// Bytes of each CPU's buffer: some 500 mappings between two looks at it.
const BUFFER_BYTES: usize = 64 << 10;
/// A record has the path of the file, which may be as long as PATH_MAX.
const LARGEST_RECORD: usize = libc::PATH_MAX as usize + 256;

/// An executable mapping that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// The process.
    pub pid: u32,
    /// First address.
    pub begin: u64,
    /// First address behind it.
    pub end: u64,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// The file's device, as `st_dev` has it.
    pub device: u64,
    /// The file's inode; 0: no file.
    pub inode: u64,
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
}

/// The perf events of all CPUs.
#[derive(Debug, Default)]
pub struct Watch {
    cpus: Vec<Cpu>,
}

struct Cpu(Sampler);

impl std::fmt::Debug for Cpu {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Cpu")
    }
}

impl Watch {
    /// Starts it on all CPUs.
    ///
    /// # Errors
    /// Those of perf_event_open(2).
    pub fn start() -> io::Result<Self> {
        let mut cpus = Vec::new();
        for cpu in 0..sys::possible_cpus()? {
            match open(cpu) {
                Ok(sampler) => cpus.push(Cpu(sampler)),
                // Not plugged in.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { cpus })
    }

    /// Takes out what was reported since the last time, in order only on each
    /// CPU; gives false if something may be missing.
    pub fn drain(&mut self, mut seen: impl FnMut(Mapped)) -> bool {
        let mut whole = true;
        for Cpu(sampler) in &mut self.cpus {
            let mut bytes = 0;
            while let Some(record) = sampler.next_record() {
                bytes += record.len();
                let mapped = match record.parse_record() {
                    Ok(Record::Mmap2(mmap)) => mapped(&mmap, &record.to_contiguous()),
                    // Processes come and go in these, too.
                    Ok(Record::Lost(_)) | Err(_) => None,
                    Ok(_) => continue,
                };
                whole &= mapped.is_some();
                mapped.into_iter().for_each(&mut seen);
            }
            // Only the next record that finds room tells that some did not.
            whole &= bytes + LARGEST_RECORD < BUFFER_BYTES;
        }
        whole
    }
}

/// One CPU's event.
fn open(cpu: usize) -> io::Result<Sampler> {
    let mut event = Builder::new(Software::DUMMY);
    event.any_pid().one_cpu(cpu).exclude_kernel(true).enabled(true);
    // Executable mappings, with their files, and nothing else that is mapped.
    event.mmap(true).mmap2(true);
    // Stamped by the clock that the probes use.
    event.sample(SampleFlag::TIME).sample_id_all(true).clockid(Clock::MONOTONIC);
    // Nobody waits for it: it is drained at times.
    event.wakeup_watermark(BUFFER_BYTES);
    event.build()?.sampled(BUFFER_BYTES)
}

/// What a record says; `data` are all its bytes.
fn mapped(mmap: &Mmap2<'_>, data: &[u8]) -> Option<Mapped> {
    // The only field of its sample_id, which ends it: see perf_event_open(2).
    let time = data.last_chunk::<8>()?;
    Some(Mapped {
        pid: mmap.pid,
        begin: mmap.addr,
        end: mmap.addr.saturating_add(mmap.len),
        offset: mmap.pgoff,
        device: libc::makedev(mmap.maj()?, mmap.min()?),
        inode: mmap.ino()?,
        time_ns: u64::from_ne_bytes(*time),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::snapshot::now_ns;

    /// Check that code that is mapped, or made executable, is reported with its
    /// place, its file and its time, and that data is not.
    #[test]
    fn mappings_are_reported() {
        use std::os::fd::AsRawFd;
        use std::os::unix::fs::MetadataExt;
        let mut watch = Watch::start().expect("perf events");
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let map = |protection, offset| {
            // SAFETY: new mappings at addresses that the kernel chooses.
            let address = unsafe {
                let (length, private) = (8192, libc::MAP_PRIVATE);
                libc::mmap(
                    std::ptr::null_mut(),
                    length,
                    protection,
                    private,
                    file.as_raw_fd(),
                    offset,
                )
            };
            assert_ne!(address, libc::MAP_FAILED);
            address
        };
        let before = now_ns().unwrap();
        let code = map(libc::PROT_READ | libc::PROT_EXEC, 4096);
        let data = map(libc::PROT_READ, 0);
        let changed = map(libc::PROT_READ, 0);
        // SAFETY: these mappings are this test's own.
        unsafe {
            assert_eq!(libc::mprotect(changed, 8192, libc::PROT_READ | libc::PROT_EXEC), 0);
            for address in [code, data, changed] {
                libc::munmap(address, 8192);
            }
        }
        let after = now_ns().unwrap();
        let mut seen = Vec::new();
        watch.drain(|mapped| {
            if mapped.pid == std::process::id() {
                seen.push(mapped);
            }
        });
        let of = |address: *mut libc::c_void| seen.iter().find(|one| one.begin == address as u64);
        let found = of(code).expect("the mapping is reported");
        assert_eq!((found.end - found.begin, found.offset), (8192, 4096));
        assert_eq!(found.inode, file.metadata().unwrap().ino());
        assert!((before..=after).contains(&found.time_ns), "{before} {found:?} {after}");
        assert!(of(changed).is_some(), "mprotect is reported");
        assert!(of(data).is_none(), "data is not");
        assert!(watch.drain(|_| {}), "nothing was lost");
    }

    /// Check that it is noticed when more is mapped than finds room.
    #[test]
    fn losses_are_noticed() {
        use std::os::fd::AsRawFd;
        let mut watch = Watch::start().expect("perf events");
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        for _ in 0..2 * BUFFER_BYTES / 64 {
            // SAFETY: a new mapping at an address that the kernel chooses, and
            // unmapped again at once.
            unsafe {
                let execute = libc::PROT_READ | libc::PROT_EXEC;
                let (any, fd) = (std::ptr::null_mut(), file.as_raw_fd());
                let address = libc::mmap(any, 4096, execute, libc::MAP_PRIVATE, fd, 0);
                assert_ne!(address, libc::MAP_FAILED);
                libc::munmap(address, 4096);
            }
        }
        assert!(!watch.drain(|_| {}));
    }
}
