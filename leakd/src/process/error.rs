//! Why a process cannot be traced.

use std::io;

/// Why a process cannot be inspected or traced: one line each, with what to
/// do about it.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// There is no such process, or it is gone.
    #[error("no process {0}: it does not exist or has ended; look it up with `pgrep -a NAME`")]
    NotFound(u32),
    /// The number is that of a thread.
    #[error("{tid} is a thread of process {pid}; give the process: {pid}")]
    Thread {
        /// The number that was given.
        tid: u32,
        /// The process that it belongs to.
        pid: u32,
    },
    /// A kernel thread.
    #[error(
        "process {pid} ({comm}) is a kernel thread and has no heap of its own; \
         give a user process"
    )]
    KernelThread {
        /// The process.
        pid: u32,
        /// Its name.
        comm: String,
    },
    /// It has ended, or is about to.
    #[error("process {pid} ({comm}) has ended and waits for its parent; give a running process")]
    Exiting {
        /// The process.
        pid: u32,
        /// Its name.
        comm: String,
    },
    /// A 32-bit program.
    #[error("process {pid} ({comm}) is a 32-bit program; leakd traces 64-bit ones only")]
    Not64Bit {
        /// The process.
        pid: u32,
        /// Its name.
        comm: String,
    },
    /// A program for another machine, under an emulator.
    #[error(
        "process {pid} ({comm}) is a program for another machine (ELF machine \
         {machine}); give a native one"
    )]
    ForeignMachine {
        /// The process.
        pid: u32,
        /// Its name.
        comm: String,
        /// `e_machine`.
        machine: u16,
    },
    /// Its program file makes no sense.
    #[error("process {pid} ({comm}): its program file {path} is not an ELF file")]
    NotElf {
        /// The process.
        pid: u32,
        /// Its name.
        comm: String,
        /// Its program.
        path: String,
    },
    /// leakd itself.
    #[error("process {0} is leakd itself, which cannot trace itself; give another process")]
    IsLeakd(u32),
    /// The kernel does not let us look.
    #[error(
        "not permitted to look into process {pid}; run as root, or with \
         CAP_SYS_PTRACE in its user namespace"
    )]
    PermissionDenied {
        /// The process.
        pid: u32,
    },
    /// Its memory map is larger than leakd reads.
    #[error("process {pid} has more than {limit} {what}; leakd reads no more")]
    TooLarge {
        /// The process.
        pid: u32,
        /// Of what it has too much.
        what: &'static str,
        /// How much is read.
        limit: usize,
    },
    /// Something in /proc cannot be read for another reason.
    #[error("cannot read {what} of process {pid}: {source}")]
    Read {
        /// The process.
        pid: u32,
        /// The file in its directory.
        what: &'static str,
        /// The reason.
        source: io::Error,
    },
}

impl ProcessError {
    /// The error for a file of a process's directory that cannot be read.
    pub(super) fn reading(pid: u32, what: &'static str, source: io::Error) -> Self {
        match source.raw_os_error() {
            // ESRCH: it ended after its directory was opened.
            Some(libc::ENOENT | libc::ESRCH) => Self::NotFound(pid),
            Some(libc::EACCES | libc::EPERM) => Self::PermissionDenied { pid },
            _ => Self::Read { pid, what, source },
        }
    }

    /// The error for something that the procfs crate could not read.
    pub(super) fn from_procfs(pid: u32, what: &'static str, error: procfs::ProcError) -> Self {
        match error {
            procfs::ProcError::NotFound(_) => Self::NotFound(pid),
            procfs::ProcError::PermissionDenied(_) => Self::PermissionDenied { pid },
            procfs::ProcError::Io(source, _) => Self::reading(pid, what, source),
            other => Self::Read { pid, what, source: io::Error::other(other.to_string()) },
        }
    }
}
