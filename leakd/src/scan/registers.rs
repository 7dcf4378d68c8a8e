//! What the threads of a process hold in registers, and where their stacks end.
//!
//! A pointer may be nowhere else. Each thread is stopped for as long as it takes
//! to read its registers, by ptrace(2), and goes on at once. The kernel lets it
//! go on where leakd dies meanwhile, too: PTRACE_SEIZE without PTRACE_O_EXITKILL.
//! Signals that arrive are passed on as they came.
//!
//! All of it is done by a thread of its own. A thread of the process that cannot
//! be stopped (in uninterruptible sleep) cannot be let go either, other than by
//! the end of the thread that seized it.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// How long a thread may take to stop.
const PATIENCE: Duration = Duration::from_millis(100);
/// Looks at the list of threads: those that are new since the last one are
/// stopped as well.
const ROUNDS: usize = 10;
/// Bytes of the extended state: AMX's tiles make it 11 KiB.
const EXTENDED: usize = 16 << 10;

/// `NT_X86_XSTATE` (linux/elf.h).
const NT_X86_XSTATE: i32 = 0x202;

/// One thread.
#[derive(Clone, Debug)]
pub struct Thread {
    /// Its id.
    pub id: u32,
    /// Its stack pointer.
    pub stack_pointer: u64,
    /// Where its thread control block is (fs): glibc puts it at the top of a
    /// thread's stack.
    pub thread_pointer: u64,
    /// All registers, vector registers included, as words.
    pub words: Vec<u64>,
    /// How long it was stopped.
    pub stopped: Duration,
}

/// The threads of a process.
#[derive(Clone, Debug, Default)]
pub struct Threads {
    /// Those that were read.
    pub threads: Vec<Thread>,
    /// Those that would not stop: what they hold in registers is unknown.
    pub unread: Vec<u32>,
}

/// Why registers cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RegistersError {
    /// Another tracer has the process.
    #[error("another tracer (a debugger?) has the process: there can be one only")]
    Traced,
    /// The system refused something else.
    #[error("cannot read the registers: {0}")]
    System(#[from] io::Error),
}

/// Reads the registers of all threads, one after the other.
///
/// # Errors
/// If the process is gone, or another tracer has it.
pub fn read(pid: u32) -> Result<Threads, RegistersError> {
    let reader = std::thread::Builder::new().name("registers".into()).spawn(move || read_all(pid))?;
    reader.join().unwrap_or_else(|_| Err(io::Error::other("the reading thread died").into()))
}

fn read_all(pid: u32) -> Result<Threads, RegistersError> {
    let mut found = Threads::default();
    let mut seen = BTreeSet::new();
    for _ in 0..ROUNDS {
        let new: Vec<u32> = ids(pid)?.into_iter().filter(|id| seen.insert(*id)).collect();
        if new.is_empty() {
            return Ok(found);
        }
        for id in new {
            match read_one(id) {
                Ok(Some(thread)) => found.threads.push(thread),
                Ok(None) => {
                    // It may hold up every further one until this thread ends.
                    found.unread.push(id);
                }
                Err(Errno::ESRCH) => {} // it has ended
                Err(Errno::EPERM) => return Err(RegistersError::Traced),
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }
    Ok(found)
}

fn ids(pid: u32) -> io::Result<Vec<u32>> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task"))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// Stops a thread, reads its registers and lets it go; `None`: it would not
/// stop, and is let go by the end of the calling thread.
fn read_one(id: u32) -> nix::Result<Option<Thread>> {
    let pid = Pid::from_raw(id.cast_signed());
    ptrace::seize(pid, Options::empty())?;
    let begin = Instant::now();
    ptrace::interrupt(pid)?;
    let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
    let status = loop {
        match waitpid(pid, Some(flags))? {
            WaitStatus::StillAlive if begin.elapsed() > PATIENCE => return Ok(None),
            WaitStatus::StillAlive => std::hint::spin_loop(),
            status => break status,
        }
    };
    let signal = match status {
        WaitStatus::Stopped(_, signal) => Some(signal),
        WaitStatus::PtraceEvent(..) => None,
        _ => return Err(Errno::ESRCH),
    };
    let read = words(pid);
    ptrace::detach(pid, signal)?;
    let (stack_pointer, thread_pointer, words) = read?;
    Ok(Some(Thread { id, stack_pointer, thread_pointer, words, stopped: begin.elapsed() }))
}

fn words(pid: Pid) -> nix::Result<(u64, u64, Vec<u64>)> {
    let general = ptrace::getregs(pid)?;
    let mut words = vec![
        general.rax, general.rbx, general.rcx, general.rdx, general.rsi, general.rdi, general.rbp,
        general.rsp, general.r8, general.r9, general.r10, general.r11, general.r12, general.r13,
        general.r14, general.r15, general.rip, general.fs_base, general.gs_base, general.orig_rax,
    ];
    let mut extended = vec![0u64; EXTENDED / 8];
    let mut vector =
        libc::iovec { iov_base: extended.as_mut_ptr().cast(), iov_len: EXTENDED };
    // SAFETY: the kernel writes at most `iov_len` bytes to `iov_base`, which is
    // that long, and the length into `vector`; any bytes are good words.
    let result = unsafe {
        libc::ptrace(libc::PTRACE_GETREGSET, pid.as_raw(), NT_X86_XSTATE, &raw mut vector)
    };
    Errno::result(result)?;
    extended.truncate(vector.iov_len / 8);
    words.append(&mut extended);
    Ok((general.rsp, general.fs_base, words))
}
