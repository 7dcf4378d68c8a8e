//! Links: what holds a program at its probes. Closing a link's descriptor
//! takes its probes out (see `release`); the kernel does so for a process that is
//! killed.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::program::{Program, UprobeAttach};
use super::{release, sys};

const LINK_CREATE: u32 = 28;
/// BPF_F_UPROBE_MULTI_RETURN.
const MULTI_RETURN: u32 = 1;
/// BPF_PERF_EVENT, as an attach type.
const ATTACH_PERF_EVENT: u32 = 41;
/// PERF_FLAG_FD_CLOEXEC.
const PERF_CLOEXEC: libc::c_ulong = 8;

/// The instructions of one object that are to be probed.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Offsets in the file.
    pub offsets: Vec<u64>,
    /// Cookies, one for each offset.
    pub cookies: Vec<u64>,
}

impl Places {
    /// Adds a place.
    pub fn push(&mut self, offset: u64, cookie: u64) {
        self.offsets.push(offset);
        self.cookies.push(cookie);
    }

    /// Whether there is nothing to probe.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }
}

/// A link, or several that belong together: dropped, it takes its probes out.
#[derive(Debug)]
pub struct Link {
    /// What is closed together: a uprobe_multi link, or a link and its perf event.
    groups: Vec<Vec<OwnedFd>>,
}

impl Drop for Link {
    fn drop(&mut self) {
        release::close(std::mem::take(&mut self.groups));
    }
}

/// Takes out the probes of all links, side by side: for each, the kernel waits
/// until nobody runs its program any more, some 40 ms, and it waits for all
/// that come meanwhile at once.
pub fn close_all(links: impl IntoIterator<Item = Link>) {
    let groups = links.into_iter().flat_map(|mut link| std::mem::take(&mut link.groups));
    release::close(groups.collect());
}

/// Attaches a program to places in `file`, for one process (all its threads).
/// `at_return`: at the return of the functions instead of at the places.
pub fn attach(
    program: &Program,
    file: &File,
    places: &Places,
    pid: u32,
    at_return: bool,
) -> io::Result<Link> {
    // The very file that was read, whatever its name leads to by now.
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    match program.attach_type() {
        UprobeAttach::Perf => attach_perf(program, &path, places, pid, at_return),
        UprobeAttach::Multi | UprobeAttach::Session => {
            let link = attach_multi(program, &path, places, pid, at_return)?;
            Ok(Link { groups: vec![vec![link]] })
        }
    }
}

fn attach_multi(
    program: &Program,
    path: &CString,
    places: &Places,
    pid: u32,
    at_return: bool,
) -> io::Result<OwnedFd> {
    let mut attribute = MultiAttribute {
        program_fd: program.fd().as_raw_fd() as u32,
        attach_type: program.attach_type().number(),
        path: path.as_ptr() as u64,
        offsets: places.offsets.as_ptr() as u64,
        cookies: places.cookies.as_ptr() as u64,
        count: places.offsets.len().min(places.cookies.len()) as u32,
        multi_flags: if at_return { MULTI_RETURN } else { 0 },
        pid,
        ..MultiAttribute::default()
    };
    // SAFETY: the layout of BPF_LINK_CREATE for uprobe_multi; the path ends in a
    // zero, offsets and cookies have `count` elements.
    let fd = unsafe { sys::bpf(LINK_CREATE, &mut attribute)? };
    // SAFETY: the kernel has just made this descriptor, and for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether the kernel knows links of this kind: it then complains of the
/// directory that it is asked to probe, not of the request (as libbpf's
/// probe_uprobe_multi_link has it).
pub(super) fn is_supported(program: &Program) -> bool {
    let path = c"/".to_owned();
    let places = Places { offsets: vec![0], cookies: vec![0] };
    match attach_multi(program, &path, &places, 0, false) {
        Ok(_) => true,
        Err(error) => error.raw_os_error() == Some(libc::EBADF),
    }
}

fn attach_perf(
    program: &Program,
    path: &CString,
    places: &Places,
    pid: u32,
    at_return: bool,
) -> io::Result<Link> {
    let kind = perf_uprobe_type()?;
    // Also if it fails half-way.
    let mut made = Link { groups: Vec::with_capacity(places.offsets.len()) };
    for (&offset, &cookie) in places.offsets.iter().zip(&places.cookies) {
        let mut event = PerfEventAttribute {
            kind,
            size: size_of::<PerfEventAttribute>() as u32,
            config: if at_return { perf_return_bit()? } else { 0 },
            path: path.as_ptr() as u64,
            offset,
            ..PerfEventAttribute::default()
        };
        // SAFETY: the attribute has the size that it says and its path ends in a
        // zero.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                std::ptr::from_mut(&mut event),
                pid as libc::pid_t,
                -1,
                -1,
                PERF_CLOEXEC,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor, and for us alone.
        let event = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        made.groups.push(vec![event]);
        if let Some(group) = made.groups.last_mut() {
            let link = link_perf(program.fd(), &group[0], cookie)?;
            group.push(link);
        }
    }
    Ok(made)
}

fn link_perf(program: BorrowedFd<'_>, event: &OwnedFd, cookie: u64) -> io::Result<OwnedFd> {
    let mut attribute = PerfLinkAttribute {
        program_fd: program.as_raw_fd() as u32,
        target_fd: event.as_raw_fd() as u32,
        attach_type: ATTACH_PERF_EVENT,
        flags: 0,
        cookie,
    };
    // SAFETY: the layout of BPF_LINK_CREATE for perf events, without pointers.
    let fd = unsafe { sys::bpf(LINK_CREATE, &mut attribute)? };
    // SAFETY: the kernel has just made this descriptor, and for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

const PERF_UPROBE: &str = "/sys/bus/event_source/devices/uprobe";

fn perf_uprobe_type() -> io::Result<u32> {
    let text = std::fs::read_to_string(format!("{PERF_UPROBE}/type"))?;
    text.trim().parse().map_err(io::Error::other)
}

/// The bit of `config` that asks for a return probe: `config:0` in all kernels
/// so far.
fn perf_return_bit() -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("{PERF_UPROBE}/format/retprobe"))?;
    let bit: u32 = text
        .trim()
        .strip_prefix("config:")
        .and_then(|bit| bit.parse().ok())
        .ok_or_else(|| io::Error::other(format!("cannot understand {text:?}")))?;
    1u64.checked_shl(bit).ok_or_else(|| io::Error::other(format!("bit {bit} of config")))
}

/// Attribute of BPF_LINK_CREATE for uprobe_multi.
#[repr(C)]
#[derive(Default)]
struct MultiAttribute {
    program_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    path: u64,
    offsets: u64,
    reference_counters: u64,
    cookies: u64,
    count: u32,
    multi_flags: u32,
    pid: u32,
    padding: u32,
}

const _: () = assert!(size_of::<MultiAttribute>() == 64);

/// Attribute of BPF_LINK_CREATE for perf events.
#[repr(C)]
#[derive(Default)]
struct PerfLinkAttribute {
    program_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    cookie: u64,
}

const _: () = assert!(size_of::<PerfLinkAttribute>() == 24);

/// `struct perf_event_attr`, PERF_ATTR_SIZE_VER1.
#[repr(C)]
#[derive(Default)]
struct PerfEventAttribute {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    /// `config1`: uprobe_path.
    path: u64,
    /// `config2`: probe_offset.
    offset: u64,
}

const _: () = assert!(size_of::<PerfEventAttribute>() == 72);
