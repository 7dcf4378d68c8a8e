//! leakctl as a process of its own, as users run it.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use leakd::report::model::Report;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::child::{Ending, tie};
use crate::kernel_memory::Group;

/// Exit statuses of a trace that went well: nothing found, something found.
const WELL: [i32; 2] = [0, 1];

/// leakctl, built beside this program.
fn executable() -> Result<PathBuf> {
    let this = env::current_exe()?;
    let path = this.ancestors().nth(2).unwrap_or(Path::new("/")).join("leakctl");
    ensure!(path.is_file(), "{} is not there: run `cargo xtask bench`", path.display());
    Ok(path)
}

fn attach(pid: u32, duration: Duration) -> Result<Command> {
    let mut command = Command::new(executable()?);
    command.args(["attach", &pid.to_string(), "--min-age", "0s", "--json", "--for"]);
    command.arg(format!("{}s", duration.as_secs()));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command)
}

/// Runs it for so long.
pub fn watch(pid: u32, duration: Duration) -> Result<()> {
    let status = tie(&mut attach(pid, duration)?).status().context("cannot start leakctl")?;
    ensure!(status.code().is_some_and(|code| WELL.contains(&code)), "leakctl failed ({status})");
    Ok(())
}

/// leakctl at work.
#[derive(Debug)]
pub struct Running {
    child: Ending,
    output: PathBuf,
}

/// What leakctl did.
#[derive(Debug)]
pub struct Ended {
    /// Its report.
    pub report: Report,
    /// Its largest resident size, in bytes.
    pub peak_bytes: u64,
    /// From Ctrl-C to its end.
    pub duration: Duration,
}

impl Running {
    /// Starts it, and waits until the process is under trace. The report goes
    /// to `output`; what it uses is charged to `group`.
    pub fn start(pid: u32, output: &Path, group: Option<&Group>) -> Result<Self> {
        let mut command = attach(pid, Duration::from_secs(3600))?;
        command.arg("--output").arg(output).stderr(Stdio::piped());
        if let Some(group) = group {
            group.take_in(&mut command)?;
        }
        let child = Ending(tie(&mut command).spawn().context("cannot start leakctl")?);
        let mut running = Self { child, output: output.to_owned() };
        let stderr = running.child.0.stderr.take().context("leakctl has no standard error")?;
        let mut lines = BufReader::new(stderr).lines();
        loop {
            match lines.next() {
                Some(line) if line.as_ref().is_ok_and(|line| line.contains("attached to")) => break,
                Some(line) => drop(line?),
                None => bail!("leakctl ended before it was attached"),
            }
        }
        // Progress, which nobody reads, must not hold it up.
        thread::spawn(move || lines.for_each(drop));
        Ok(running)
    }

    /// Ends it as Ctrl-C does.
    pub fn end(mut self) -> Result<Ended> {
        let status_file = format!("/proc/{}/status", self.child.0.id());
        let start = Instant::now();
        kill(Pid::from_raw(self.child.0.id() as i32), Signal::SIGINT)?;
        let mut peak_bytes = 0;
        // wait4(2) would tell the peak, too, but as the larger of this and what
        // the process had before its exec: our own size.
        let status = loop {
            if let Ok(text) = fs::read_to_string(&status_file) {
                peak_bytes = peak_bytes.max(peak(&text).unwrap_or(0));
            }
            if let Some(status) = self.child.0.try_wait()? {
                break status;
            }
            thread::sleep(Duration::from_millis(1));
        };
        let duration = start.elapsed();
        ensure!(
            status.code().is_some_and(|code| WELL.contains(&code)),
            "leakctl failed ({status})"
        );
        let report = serde_json::from_slice(&fs::read(&self.output)?)?;
        Ok(Ended { report, peak_bytes, duration })
    }
}

/// VmHWM of a process's status, in bytes.
fn peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes << 10)
}
