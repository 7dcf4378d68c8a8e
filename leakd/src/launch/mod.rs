//! Starting a command so that it is under trace from its first instruction.
//!
//! The command is stopped by ptrace(2) where exec leaves it, and then at each
//! system call of its dynamic loader: as soon as the loader has mapped an
//! object, its allocators are probed, before any code of it runs. At the first
//! system call from elsewhere the loader is done, and the command is let go.
//! Should leakd die meanwhile, the kernel lets the command go by itself.

mod registers;

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use crate::process::mappings;
use registers::Registers;

/// System calls of a loader that are followed: some for each of its objects.
const STOPS_LIMIT: u32 = 100_000;

/// Why a command is not under trace.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError<E> {
    /// It could not be started.
    #[error("cannot run {command}: {source}")]
    Start {
        /// The command.
        command: String,
        /// The cause.
        source: io::Error,
    },
    /// It could not be held while it was prepared.
    #[error("cannot hold the command while it starts: {0}")]
    Hold(#[from] Errno),
    /// The callback failed; the command was let go.
    #[error(transparent)]
    Prepare(E),
}

/// What the command is at when the callback is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Exec is over; nothing of the program has run.
    Started,
    /// The loader has mapped something executable.
    Mapped,
}

/// Starts a command. `prepare` is called with its pid while it is stopped, at
/// each [`Stage`]. On an error from it the command is killed: it has done
/// nothing yet.
pub fn launch<E>(
    command: &mut Command,
    mut prepare: impl FnMut(u32, Stage) -> Result<(), E>,
) -> Result<Child, LaunchError<E>> {
    // SAFETY: ptrace(2) with PTRACE_TRACEME is safe between fork and exec.
    unsafe {
        command.pre_exec(|| ptrace::traceme().map_err(io::Error::from));
    }
    let mut child = command.spawn().map_err(|source| LaunchError::Start {
        command: command.get_program().to_string_lossy().into_owned(),
        source,
    })?;
    match hold(child.id(), &mut prepare) {
        Ok(()) => Ok(child),
        Err(error) => {
            // Our own child, which has not got beyond its loader.
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

/// Waits until the child stops, or has ended: then it is left for its owner to
/// wait for.
fn next_stop(pid: Pid) -> nix::Result<WaitStatus> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT;
    match waitid(Id::Pid(pid), flags)? {
        ended @ (WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => Ok(ended),
        _ => waitpid(pid, None),
    }
}

/// Whether this mapping of a process is of another file than its program. Asked
/// by the files' names in /proc: the number of the inode that /proc/PID/maps
/// gives is, before Linux 6.8, of the file under an overlay.
fn is_loader(id: u32, begin: u64, end: u64) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |name: &str| {
        let file = std::fs::metadata(format!("/proc/{id}/{name}")).ok()?;
        Some((file.dev(), file.ino()))
    };
    let mapped = identity(&format!("map_files/{begin:x}-{end:x}"));
    mapped.is_some() && mapped != identity("exe")
}

fn hold<E>(
    id: u32,
    prepare: &mut impl FnMut(u32, Stage) -> Result<(), E>,
) -> Result<(), LaunchError<E>> {
    let pid = Pid::from_raw(id as i32);
    if !matches!(next_stop(pid)?, WaitStatus::Stopped(_, Signal::SIGTRAP)) {
        return Ok(()); // It was killed; whoever waits for it learns how.
    }
    ptrace::setoptions(pid, Options::PTRACE_O_TRACESYSGOOD)?;
    prepare(id, Stage::Started).map_err(LaunchError::Prepare)?;
    // Exec leaves a dynamic program at its loader's entry, a static one at its
    // own: the mapping that holds the instruction is the one to follow.
    let first = Registers::of(pid)?.instruction();
    let loader = mappings(id).ok().and_then(|mappings| {
        mappings.into_iter().find(|one| (one.begin..one.end).contains(&first))
    });
    let Some(loader) = loader.filter(|one| is_loader(id, one.begin, one.end)) else {
        return Ok(ptrace::detach(pid, None)?);
    };
    let mut entering = false;
    let mut deliver = None;
    for _ in 0..STOPS_LIMIT {
        ptrace::syscall(pid, deliver.take())?;
        match next_stop(pid)? {
            WaitStatus::PtraceSyscall(_) => {
                entering = !entering;
                let registers = Registers::of(pid)?;
                if !(loader.begin..loader.end).contains(&registers.instruction()) {
                    break;
                }
                let maps_code = registers.system_call() == libc::SYS_mmap as u64
                    && registers.third_argument() & libc::PROT_EXEC as u64 != 0;
                if !entering && maps_code {
                    prepare(id, Stage::Mapped).map_err(LaunchError::Prepare)?;
                }
            }
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
            WaitStatus::Stopped(_, signal) => deliver = Some(signal),
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => return Ok(()),
            _ => {}
        }
    }
    ptrace::detach(pid, deliver)?;
    Ok(())
}
