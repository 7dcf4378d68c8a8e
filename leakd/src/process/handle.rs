//! A process that cannot be mistaken for another one.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use procfs::process::Process;

use super::info::{inspect_directory, open};
use super::{ProcessError, ProcessInfo};

/// A process, held by a pidfd: as long as this lives, its pid may go to
/// another process, but the handle does not.
#[derive(Debug)]
pub struct ProcessHandle {
    pidfd: OwnedFd,
    directory: Process,
    info: ProcessInfo,
}

impl ProcessHandle {
    /// Takes hold of a process that can be traced.
    ///
    /// # Errors
    /// See [`ProcessError`].
    pub fn open(pid: u32) -> Result<Self, ProcessError> {
        let pidfd = match pidfd_open(pid) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                // EINVAL: not the leader of its thread group. What it is
                // instead, /proc tells better.
                inspect_directory(&open(pid)?, pid)?;
                return Err(ProcessError::reading(pid, "a pidfd", error));
            }
        };
        let directory = open(pid)?;
        let info = inspect_directory(&directory, pid)?;
        let handle = Self { pidfd, directory, info };
        // The directory was opened by number after the pidfd. If the process
        // behind the pidfd has not ended since, the number was its own all
        // along.
        if handle.has_exited().map_err(|error| ProcessError::reading(pid, "a pidfd", error))? {
            return Err(ProcessError::NotFound(pid));
        }
        Ok(handle)
    }

    /// What was found out when it was opened.
    pub fn info(&self) -> &ProcessInfo {
        &self.info
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.info.pid
    }

    /// What is known of it now; the program may be another one after exec.
    ///
    /// # Errors
    /// See [`ProcessError`]; [`ProcessError::NotFound`] if it has ended.
    pub fn refresh(&self) -> Result<ProcessInfo, ProcessError> {
        inspect_directory(&self.directory, self.pid())
    }

    /// Whether its last thread has ended.
    ///
    /// # Errors
    /// Those of poll(2).
    pub fn has_exited(&self) -> io::Result<bool> {
        self.wait(Some(Duration::ZERO))
    }

    /// Waits until it has ended; `None`: as long as that takes. Returns
    /// whether it has.
    ///
    /// For an asynchronous program: the handle is a file descriptor that
    /// becomes readable then.
    ///
    /// # Errors
    /// Those of poll(2).
    pub fn wait(&self, limit: Option<Duration>) -> io::Result<bool> {
        let end = limit.map(|limit| std::time::Instant::now() + limit);
        loop {
            let left = end.map(|end| end.saturating_duration_since(std::time::Instant::now()));
            // Rounded up, or the last millisecond would be spent spinning.
            let milliseconds = left.map_or(-1, |left| {
                i32::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
            });
            let mut poll =
                libc::pollfd { fd: self.pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one valid pollfd, for the length of the call.
            let ready = unsafe { libc::poll(&raw mut poll, 1, milliseconds) };
            match ready {
                0 if left.is_none_or(|left| left > Duration::ZERO) => {}
                0 => return Ok(false),
                1.. => return Ok(true),
                _ => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
    }
}

impl AsFd for ProcessHandle {
    /// The pidfd.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl AsRawFd for ProcessHandle {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.pidfd.as_raw_fd()
    }
}

fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open(2) takes two integers and touches no memory of ours.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us (with CLOEXEC).
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
