//! Who a process is.

use std::io::Read;

use procfs::process::{Process, StatFlags};

use super::ProcessError;
use super::executable;

/// The kernel's is about 1.5 KiB.
const MAX_STATUS: u64 = 64 << 10;
/// Longer paths of programs are cut when shown.
const MAX_SHOWN: usize = 4096;

/// What is known of a process that can be traced: a 64-bit user process of
/// this machine's kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Its pid in leakd's pid namespace.
    pub pid: u32,
    /// Its name (`comm`), fit to be shown.
    pub comm: String,
    /// The path of its program as its mount namespace has it, fit to be
    /// shown; not to be opened. Ends in " (deleted)" if the file is.
    pub exe: String,
    /// The user that it runs as (its real uid).
    pub uid: u32,
    /// When it started, in clock ticks since boot: with the pid, its
    /// identity.
    pub start_time: u64,
    /// How many threads it has.
    pub threads: u32,
}

/// Tells who a process is, or why it cannot be traced.
///
/// # Errors
/// See [`ProcessError`].
pub fn inspect(pid: u32) -> Result<ProcessInfo, ProcessError> {
    inspect_directory(&open(pid)?, pid)
}

/// Opens a process's directory in /proc.
pub(super) fn open(pid: u32) -> Result<Process, ProcessError> {
    // /proc/0 does not exist, and to the procfs crate negative numbers are
    // names like any other.
    let number = i32::try_from(pid).ok().filter(|pid| *pid > 0);
    let number = number.ok_or(ProcessError::NotFound(pid))?;
    Process::new(number).map_err(|error| ProcessError::from_procfs(pid, "its directory", error))
}

/// The same as [`inspect`], by a handle on the directory in /proc.
pub(super) fn inspect_directory(process: &Process, pid: u32) -> Result<ProcessInfo, ProcessError> {
    if pid == std::process::id() {
        return Err(ProcessError::IsLeakd(pid));
    }
    let stat = process.stat().map_err(|error| ProcessError::from_procfs(pid, "stat", error))?;
    let comm = printable(&stat.comm);
    if stat.flags & StatFlags::PF_KTHREAD.bits() != 0 {
        return Err(ProcessError::KernelThread { pid, comm });
    }
    if matches!(stat.state, 'Z' | 'X' | 'x') {
        return Err(ProcessError::Exiting { pid, comm });
    }
    let status = read_status(process, pid)?;
    if status.tgid != pid {
        return Err(ProcessError::Thread { tid: pid, pid: status.tgid });
    }
    let gone = |error| match error {
        // Its memory is gone already, its directory is not yet.
        ProcessError::NotFound(_) => ProcessError::Exiting { pid, comm: comm.clone() },
        other => other,
    };
    let exe = process.exe().map_err(|error| gone(ProcessError::from_procfs(pid, "exe", error)))?;
    let exe = printable(&exe.to_string_lossy());
    executable::check(process, pid, &comm, &exe).map_err(gone)?;
    Ok(ProcessInfo {
        pid,
        exe,
        uid: status.uid,
        start_time: stat.starttime,
        threads: u32::try_from(stat.num_threads).unwrap_or(1),
        comm,
    })
}

/// Strips what a terminal would obey.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect()
}

struct Status {
    tgid: u32,
    uid: u32,
}

/// Reads what is needed of /proc/PID/status. Not by the procfs crate: it
/// gives up on a process whose name is not UTF-8, and anybody can give a
/// process such a name. A newline in it the kernel writes as `\n`.
fn read_status(process: &Process, pid: u32) -> Result<Status, ProcessError> {
    let reading = |error| ProcessError::reading(pid, "status", error);
    let file = process
        .open_relative("status")
        .map_err(|error| ProcessError::from_procfs(pid, "status", error))?;
    let mut bytes = Vec::new();
    file.take(MAX_STATUS).read_to_end(&mut bytes).map_err(reading)?;
    let text = String::from_utf8_lossy(&bytes);
    let number = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        value.split_ascii_whitespace().next()?.parse().ok()
    };
    match (number("Tgid:"), number("Uid:")) {
        (Some(tgid), Some(uid)) => Ok(Status { tgid, uid }),
        _ => Err(reading(std::io::Error::other("it names no thread group or no user"))),
    }
}
