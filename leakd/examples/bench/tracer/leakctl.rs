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

use super::process::Tool;
use super::{LEAKD, Options};
use crate::child::{self, tie};

/// Exit statuses of a trace that went well: nothing found, something found.
const WELL: [i32; 2] = [0, 1];

/// leakctl, built beside this program.
pub fn executable() -> Result<PathBuf> {
    let this = env::current_exe()?;
    let path = this.ancestors().nth(2).unwrap_or(Path::new("/")).join("leakctl");
    ensure!(path.is_file(), "{} is not there: run `cargo xtask bench`", path.display());
    Ok(path)
}

fn attach(pid: u32, duration: Duration, min_age: Duration) -> Result<Command> {
    let mut command = Command::new(executable()?);
    command.args(["attach", "--no-daemon", &pid.to_string(), "--json"]);
    command.arg("--min-age").arg(format!("{}ms", min_age.as_millis()));
    command.arg("--for").arg(format!("{}s", duration.as_secs()));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command)
}

/// Runs it for so long.
pub fn watch(pid: u32, duration: Duration) -> Result<()> {
    let status = tie(&mut attach(pid, duration, Duration::ZERO)?)
        .status()
        .context("cannot start leakctl")?;
    ensure!(status.code().is_some_and(|code| WELL.contains(&code)), "leakctl failed ({status})");
    Ok(())
}

/// leakctl at work.
#[derive(Debug)]
pub struct Running {
    tool: Tool,
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
    /// Starts it, and waits until the process is under trace.
    pub fn start(pid: u32, options: &Options, sample_bytes: u64) -> Result<Self> {
        let mut command = attach(pid, Duration::from_secs(3600), options.min_age)?;
        command.arg("--output").arg(&options.report).stderr(Stdio::piped());
        command.args(["--max-blocks", &options.blocks.to_string()]);
        command.args(["--sample-bytes", &sample_bytes.to_string()]);
        // All call sites, however many.
        command.args(["--top", "100000"]);
        let mut tool = Tool::start(LEAKD, &mut command)?;
        let stderr = tool.child.0.stderr.take().context("leakctl has no standard error")?;
        let mut lines = BufReader::new(stderr).lines();
        let mut said = String::new();
        loop {
            match lines.next() {
                Some(line) if line.as_ref().is_ok_and(|line| line.contains("attached to")) => break,
                Some(line) => said = line?,
                None => bail!("leakctl ended before it was attached: {said}"),
            }
        }
        // Progress, which nobody reads, must not hold it up.
        thread::spawn(move || lines.for_each(drop));
        Ok(Self { tool, output: options.report.clone() })
    }

    /// Its process.
    pub const fn tool(&self) -> &Tool {
        &self.tool
    }

    /// Ends it as Ctrl-C does.
    pub fn end(self) -> Result<Ended> {
        let mut child = self.tool.child;
        let pid = child.0.id();
        let start = Instant::now();
        // It may have ended with its target.
        if child.0.try_wait()?.is_none() {
            kill(Pid::from_raw(pid as i32), Signal::SIGINT)?;
        }
        let mut peak_bytes = 0;
        // wait4(2) would tell the peak, too, but as the larger of this and what
        // the process had before its exec: our own size.
        let status = loop {
            peak_bytes = peak_bytes.max(child::peak_bytes(pid).unwrap_or(0));
            if let Some(status) = child.0.try_wait()? {
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
