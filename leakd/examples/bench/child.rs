//! Other programs that the benchmark starts: none of them outlives it.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use procfs::process::Process;

/// The children that run, and the signal that ends each, for who has to end them
/// all at once.
static RUNNING: Mutex<Vec<(u32, Signal)>> = Mutex::new(Vec::new());

/// Makes the kernel end the command when this program ends, however it does, and
/// keeps the terminal's Ctrl-C from it: that is for us to handle.
///
/// The kernel watches the thread that starts the command: the main one must.
pub fn tie(command: &mut Command) -> &mut Command {
    tie_by(command, Signal::SIGKILL)
}

/// The same, with the signal that ends it.
fn tie_by(command: &mut Command, signal: Signal) -> &mut Command {
    command.process_group(0);
    // SAFETY: prctl(2) with integers is safe between fork and exec.
    unsafe {
        command.pre_exec(move || match libc::prctl(libc::PR_SET_PDEATHSIG, signal as i32) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        })
    }
}

/// A running child; dropping it ends it.
#[derive(Debug)]
pub struct Ending(pub Child);

impl Ending {
    /// Starts a command that is tied to us.
    pub fn start(command: &mut Command) -> Result<Self> {
        Self::start_by(command, Signal::SIGKILL)
    }

    /// The same for one that something is left of unless it is ended by this signal.
    pub fn start_by(command: &mut Command, signal: Signal) -> Result<Self> {
        let child = tie_by(command, signal).spawn();
        let child = child.with_context(|| {
            format!("cannot start {}", Path::new(command.get_program()).display())
        })?;
        running().push((child.id(), signal));
        Ok(Self(child))
    }

    /// The same, with nothing to read and nothing to say.
    pub fn start_silent(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self::start(command)
    }

    /// Sends it a signal, and waits for its end.
    pub fn end(&mut self, signal: Signal, patience: Duration) -> Result<()> {
        if self.0.try_wait()?.is_none() {
            kill(Pid::from_raw(self.0.id() as i32), signal)?;
        }
        self.wait(patience)
    }

    /// Waits for its end.
    pub fn wait(&mut self, patience: Duration) -> Result<()> {
        let end = Instant::now() + patience;
        while self.0.try_wait()?.is_none() {
            ensure!(Instant::now() < end, "it did not end within {} s", patience.as_secs());
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        // It may have gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
        running().retain(|&(pid, _)| pid != self.0.id());
    }
}

fn running() -> std::sync::MutexGuard<'static, Vec<(u32, Signal)>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends all children: for when we have to go at once.
pub fn end_all() {
    for &(pid, signal) in running().iter() {
        // Ours until it is waited for, which takes it from the list afterwards.
        let _ = kill(Pid::from_raw(pid as i32), signal);
    }
}

/// CPU time that a process and its threads have used, in seconds; `None` once it
/// has been waited for.
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = process(pid)?.stat().ok()?;
    Some((stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64)
}

/// A process's resident memory, in bytes.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    Some(process(pid)?.status().ok()?.vmrss? << 10)
}

/// The most that was resident so far, in bytes.
pub fn peak_bytes(pid: u32) -> Option<u64> {
    Some(process(pid)?.status().ok()?.vmhwm? << 10)
}

fn process(pid: u32) -> Option<Process> {
    Process::new(i32::try_from(pid).ok()?).ok()
}

/// Waits until something is so; `what` says in an error what was waited for.
pub fn until(what: &str, patience: Duration, mut so: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + patience;
    while !so()? {
        ensure!(Instant::now() < end, "{what}: not within {} s", patience.as_secs());
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A program of that name in PATH.
pub fn in_path(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    // nginx is where only root's PATH leads.
    let more = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path)
        .chain(more)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}
