//! Links: what holds a program at its probes. They are made by a child (see `create`).
//! Closing a link's descriptor takes its probes out (see `release`); the kernel does so
//! for a process that is killed.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::program::{Program, UprobeAttach};
use super::{create, release, sys};

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
    let mut attribute = multi_attribute(program, path, places, pid, at_return);
    // SAFETY: path, offsets and cookies outlive the child's call.
    let (mut made, outcome) = create::descriptors(1, |_| unsafe { link_multi(&mut attribute) });
    outcome?;
    made.pop().ok_or_else(|| io::Error::other("no link was made"))
}

/// What names the path and the places, which must outlive it.
fn multi_attribute(
    program: &Program,
    path: &CString,
    places: &Places,
    pid: u32,
    at_return: bool,
) -> MultiAttribute {
    MultiAttribute {
        program_fd: program.fd().as_raw_fd() as u32,
        attach_type: program.attach_type().number(),
        path: path.as_ptr() as u64,
        offsets: places.offsets.as_ptr() as u64,
        cookies: places.cookies.as_ptr() as u64,
        count: places.offsets.len().min(places.cookies.len()) as u32,
        multi_flags: if at_return { MULTI_RETURN } else { 0 },
        pid,
        ..MultiAttribute::default()
    }
}

/// # Safety
/// What [`multi_attribute`] was made from must still be there.
unsafe fn link_multi(attribute: &mut MultiAttribute) -> io::Result<RawFd> {
    // SAFETY: the layout of BPF_LINK_CREATE for uprobe_multi; the path ends in a
    // zero, offsets and cookies have `count` elements.
    unsafe { sys::bpf(LINK_CREATE, attribute) }
}

/// Whether the kernel knows links of this kind: it then complains of the
/// directory that it is asked to probe, not of the request (as libbpf's
/// probe_uprobe_multi_link has it).
pub(super) fn is_supported(program: &Program) -> bool {
    let path = c"/".to_owned();
    let places = Places { offsets: vec![0], cookies: vec![0] };
    let mut attribute = multi_attribute(program, &path, &places, 0, false);
    // SAFETY: path and places live to the end of this function.
    let refused = unsafe { link_multi(&mut attribute) };
    refused.is_err_and(|error| error.raw_os_error() == Some(libc::EBADF))
}

fn attach_perf(
    program: &Program,
    path: &CString,
    places: &Places,
    pid: u32,
    at_return: bool,
) -> io::Result<Link> {
    let kind = perf_uprobe_type()?;
    let config = if at_return { perf_return_bit()? } else { 0 };
    let event = |offset: u64| PerfEventAttribute {
        kind,
        size: size_of::<PerfEventAttribute>() as u32,
        config,
        path: path.as_ptr() as u64,
        offset,
        ..PerfEventAttribute::default()
    };
    let mut event_fd = -1;
    // For each place an event, and then the program's link to it.
    let (made, outcome) = create::descriptors(2 * places.offsets.len(), |number| {
        let place = number / 2;
        if number % 2 == 0 {
            // SAFETY: its path is that of this function's caller.
            event_fd = unsafe { open_event(&mut event(places.offsets[place]), pid) }?;
            Ok(event_fd)
        } else {
            let cookie = places.cookies.get(place).copied().unwrap_or_default();
            link_perf(program.fd().as_raw_fd(), event_fd, cookie)
        }
    });
    let mut groups: Vec<Vec<OwnedFd>> = Vec::with_capacity(places.offsets.len());
    for (number, descriptor) in made.into_iter().enumerate() {
        match groups.last_mut() {
            Some(group) if number % 2 == 1 => group.push(descriptor),
            _ => groups.push(vec![descriptor]),
        }
    }
    // Also where it failed half-way: what was made is taken out.
    let link = Link { groups };
    outcome.map(|()| link)
}

/// # Safety
/// Its path must be good, and end in a zero.
unsafe fn open_event(event: &mut PerfEventAttribute, pid: u32) -> io::Result<RawFd> {
    // SAFETY: the attribute has the size that it says; the rest is the caller's.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            std::ptr::from_mut(event),
            pid as libc::pid_t,
            -1,
            -1,
            PERF_CLOEXEC,
        )
    };
    if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(fd as RawFd) }
}

fn link_perf(program: RawFd, event: RawFd, cookie: u64) -> io::Result<RawFd> {
    let mut attribute = PerfLinkAttribute {
        program_fd: program as u32,
        target_fd: event as u32,
        attach_type: ATTACH_PERF_EVENT,
        flags: 0,
        cookie,
    };
    // SAFETY: the layout of BPF_LINK_CREATE for perf events, without pointers.
    unsafe { sys::bpf(LINK_CREATE, &mut attribute) }
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
