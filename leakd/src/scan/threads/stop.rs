//! Threads stopped by ptrace(2), to read their registers: one for a moment, or
//! all of them for one exact pass.
//!
//! The kernel lets all of them go where leakd dies meanwhile (PTRACE_SEIZE without
//! PTRACE_O_EXITKILL), and signals that arrive are passed on as they came. No
//! signal is ever sent.
//!
//! All of it is done by threads of their own: who would not stop (in
//! uninterruptible sleep) cannot be let go other than by the end of the thread that
//! seized it.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::ids;

/// How long one thread may take to stop.
const PATIENCE: Duration = Duration::from_millis(100);
/// The same where the whole process is to stop.
const LONG_PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of the extended state: AMX's tiles make it 11 KiB.
const EXTENDED: usize = 16 << 10;
/// `NT_X86_XSTATE` (linux/elf.h).
const NT_X86_XSTATE: i32 = 0x202;

/// One thread.
#[derive(Clone, Debug)]
pub struct Thread {
    /// Its stack pointer.
    pub stack_pointer: u64,
    /// All registers, vector registers included, as words.
    pub words: Vec<u64>,
}

/// Why threads cannot be stopped.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// Another tracer has it.
    #[error(
        "thread {0} is under another tracer (gdb, strace?), and there can be only one: end that, \
         or scan without --stop"
    )]
    Traced(u32),
    /// It did not stop.
    #[error(
        "thread {0} did not stop within a second (uninterruptible sleep?); the process runs on. \
         Scan without --stop"
    )]
    WouldNot(u32),
    /// The system refused something else.
    #[error("cannot stop the process: {0}")]
    System(#[from] io::Error),
}

impl From<Errno> for StopError {
    fn from(error: Errno) -> Self {
        Self::System(error.into())
    }
}

/// Stops one thread, reads its registers and lets it go; `None`: it has ended.
pub fn read_one_apart(id: u32) -> Result<Option<Thread>, StopError> {
    apart(|| {
        let Some(held) = Held::seize(id)? else { return Ok(None) };
        let Some(held) = held.wait(PATIENCE)? else { return Ok(None) };
        let read = registers(held.pid);
        held.release();
        Ok(Some(read?))
    })
}

/// Stops all threads of a process, has `work` done with their registers, and lets
/// them go; gives for how long they were stopped, too.
pub fn while_stopped<T: Send>(
    pid: u32,
    work: impl FnOnce(&[Thread]) -> T + Send,
) -> Result<(T, Duration), StopError> {
    apart(|| {
        let begin = Instant::now();
        let (mut stopped, mut threads) = (Vec::new(), Vec::new());
        let mut seen = BTreeSet::new();
        // Those that run may make others until they are stopped.
        loop {
            let mut held = Vec::new();
            for id in ids(pid)?.into_iter().filter(|id| seen.insert(*id)) {
                held.extend(Held::seize(id)?);
            }
            if held.is_empty() {
                break;
            }
            for one in held {
                stopped.extend(one.wait(LONG_PATIENCE)?);
            }
        }
        for one in &stopped {
            threads.push(registers(one.pid)?);
        }
        let done = work(&threads);
        stopped.into_iter().for_each(Held::release);
        Ok((done, begin.elapsed()))
    })
}

/// Does it on a thread of its own, whose end lets go of whatever it still holds.
fn apart<T: Send>(work: impl FnOnce() -> Result<T, StopError> + Send) -> Result<T, StopError> {
    std::thread::scope(|scope| {
        let name = "ptrace".to_owned();
        let thread = std::thread::Builder::new().name(name).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the stopping thread died").into()))
    })
}

/// A thread that is seized, and stopped from [`Held::wait`] on.
struct Held {
    pid: Pid,
    /// The signal that it was about to get.
    signal: Option<Signal>,
}

impl Held {
    /// Seizes a thread and has it stop; `None`: it has ended.
    fn seize(id: u32) -> Result<Option<Self>, StopError> {
        let pid = Pid::from_raw(id.cast_signed());
        match ptrace::seize(pid, Options::empty()) {
            Ok(()) => {}
            Err(Errno::ESRCH) => return Ok(None),
            Err(Errno::EPERM) if is_traced(id) => return Err(StopError::Traced(id)),
            // One that ends: also the first thread, which is kept for the others.
            Err(Errno::EPERM) if has_ended(id) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        match ptrace::interrupt(pid) {
            Ok(()) => Ok(Some(Self { pid, signal: None })),
            Err(Errno::ESRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until it has stopped; `None`: it has ended.
    fn wait(mut self, patience: Duration) -> Result<Option<Self>, StopError> {
        let begin = Instant::now();
        let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
        loop {
            match waitpid(self.pid, Some(flags)) {
                Ok(WaitStatus::StillAlive) if begin.elapsed() > patience => {
                    return Err(StopError::WouldNot(self.pid.as_raw().cast_unsigned()));
                }
                Ok(WaitStatus::StillAlive) if begin.elapsed() < Duration::from_millis(1) => {
                    // It may need this very processor to get to its stop.
                    std::thread::yield_now();
                }
                Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_micros(50)),
                Ok(WaitStatus::Stopped(_, signal)) => {
                    self.signal = Some(signal);
                    return Ok(Some(self));
                }
                Ok(WaitStatus::PtraceEvent(..)) => return Ok(Some(self)),
                Ok(_) | Err(Errno::ECHILD) => return Ok(None),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Lets it go, with its signal if it was about to get one.
    fn release(self) {
        // Fails only if it was killed.
        let _ = ptrace::detach(self.pid, self.signal);
    }
}

fn status(id: u32, field: &str) -> Option<String> {
    let text = std::fs::read(format!("/proc/{id}/status")).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.lines().find_map(|line| Some(line.strip_prefix(field)?.trim().to_owned()))
}

fn is_traced(id: u32) -> bool {
    status(id, "TracerPid:").is_some_and(|tracer| tracer != "0")
}

fn has_ended(id: u32) -> bool {
    status(id, "State:").is_none_or(|state| state.starts_with(['Z', 'X']))
}

#[cfg(target_arch = "x86_64")]
fn registers(pid: Pid) -> nix::Result<Thread> {
    let general = ptrace::getregs(pid)?;
    let mut words = vec![
        general.rax,
        general.rbx,
        general.rcx,
        general.rdx,
        general.rsi,
        general.rdi,
        general.rbp,
        general.r8,
        general.r9,
        general.r10,
        general.r11,
        general.r12,
        general.r13,
        general.r14,
        general.r15,
        general.fs_base,
        general.gs_base,
    ];
    let mut extended = vec![0u64; EXTENDED / 8];
    let mut vector = libc::iovec { iov_base: extended.as_mut_ptr().cast(), iov_len: EXTENDED };
    // SAFETY: the kernel writes at most `iov_len` bytes to `iov_base`, which is
    // that long, and the length into `vector`; any bytes are good words.
    let result = unsafe {
        libc::ptrace(libc::PTRACE_GETREGSET, pid.as_raw(), NT_X86_XSTATE, &raw mut vector)
    };
    Errno::result(result)?;
    extended.truncate(vector.iov_len / 8);
    words.append(&mut extended);
    Ok(Thread { stack_pointer: general.rsp, words })
}

#[cfg(not(target_arch = "x86_64"))]
fn registers(_: Pid) -> nix::Result<Thread> {
    Err(Errno::ENOSYS)
}
