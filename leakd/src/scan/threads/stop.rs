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
    /// The number of the signal that it was about to get; 0: none.
    signal: i32,
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
            Ok(()) => Ok(Some(Self { pid, signal: 0 })),
            Err(Errno::ESRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until it has stopped; `None`: it has ended.
    fn wait(mut self, patience: Duration) -> Result<Option<Self>, StopError> {
        let begin = Instant::now();
        loop {
            match status_now(self.pid) {
                Ok(None) if begin.elapsed() > patience => {
                    return Err(StopError::WouldNot(self.pid.as_raw().cast_unsigned()));
                }
                Ok(None) if begin.elapsed() < Duration::from_millis(1) => {
                    // It may need this very processor to get to its stop.
                    std::thread::yield_now();
                }
                Ok(None) => std::thread::sleep(Duration::from_micros(50)),
                Ok(Some(status)) if libc::WIFSTOPPED(status) => {
                    // Above the signal is the event, if it is not about a signal.
                    let is_event = status >> 16 != 0;
                    self.signal = if is_event { 0 } else { libc::WSTOPSIG(status) };
                    return Ok(Some(self));
                }
                Ok(Some(_)) | Err(Errno::ECHILD) => return Ok(None),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Lets it go, with its signal if it was about to get one.
    fn release(self) {
        let (nothing, signal) = (std::ptr::null_mut::<libc::c_void>(), i64::from(self.signal));
        // SAFETY: takes two numbers and no address. Fails only if it was killed.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.pid.as_raw(), nothing, signal) };
    }
}

/// The status of a thread that has stopped or ended, as waitpid(2) gives it; `None`:
/// neither. nix has no name for real-time signals and refuses such a status.
fn status_now(pid: Pid) -> nix::Result<Option<i32>> {
    let mut status = 0;
    let flags = libc::__WALL | libc::WNOHANG;
    // SAFETY: the kernel writes one integer to `status`.
    let result = unsafe { libc::waitpid(pid.as_raw(), &raw mut status, flags) };
    Ok((Errno::result(result)? != 0).then_some(status))
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
