//! Another tool that does the same work: memleak of libbpf-tools, or a script
//! for bpftrace.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use leakd::process::{MappingKind, mappings};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::child::{Ending, tie};
use crate::target::{Shape, Target};

/// Names memleak's executable.
const MEMLEAK_VARIABLE: &str = "LEAKD_BENCH_MEMLEAK";
/// memleak's name in Debian's libbpf-tools.
const MEMLEAK: &str = "memleak-libbpf";
const BPFTRACE: &str = "bpftrace";
const SCRIPT: &str = include_str!("peer.bt");

/// How long a tool may take to attach, and to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// A traced pair takes longer than this, a bare one never, in ns.
const TRACED_NS: f64 = 400.0;

/// A tool to compare with.
#[derive(Clone, Debug)]
pub enum Peer {
    /// libbpf-tools' memleak.
    Memleak(PathBuf),
    /// The script in `peer.bt`.
    Bpftrace(PathBuf),
}

impl Peer {
    /// The best that this machine has.
    pub fn find() -> Option<Self> {
        env::var_os(MEMLEAK_VARIABLE)
            .map(PathBuf::from)
            .or_else(|| in_path(MEMLEAK))
            .map(Self::Memleak)
            .or_else(|| in_path(BPFTRACE).map(Self::Bpftrace))
    }

    /// Its name, for the report.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Memleak(_) => "memleak",
            Self::Bpftrace(_) => "bpftrace",
        }
    }

    fn command(&self, pid: u32) -> Result<Command> {
        let mut command;
        match self {
            Self::Memleak(path) => {
                command = Command::new(path);
                // A report every hour: none.
                command.args(["-p", &pid.to_string(), "3600"]);
            }
            Self::Bpftrace(path) => {
                command = Command::new(path);
                let script = SCRIPT.replace("ALLOCATOR", &c_library(pid)?.display().to_string());
                command.env("BPFTRACE_MAP_KEYS_MAX", "1000000");
                command.args(["-p", &pid.to_string(), "-e", &script]);
            }
        }
        Ok(command)
    }

    /// Attaches it to the program, and waits until that is slowed.
    pub fn attach(&self, target: &mut Target) -> Result<Attached> {
        let mut command = self.command(target.pid())?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = tie(&mut command).spawn();
        let child = child.with_context(|| format!("cannot start {}", self.name()))?;
        let mut attached = Attached { child: Ending(child), name: self.name() };
        let end = Instant::now() + PATIENCE;
        let (mut last, mut same) = (0.0, 0);
        // It sets its probes one by one: all are there once the price no longer
        // rises.
        while same < 3 {
            if let Some(status) = attached.child.0.try_wait()? {
                bail!("{} ended at once ({status})", self.name());
            }
            ensure!(Instant::now() < end, "{} did not attach within a minute", self.name());
            thread::sleep(Duration::from_millis(150));
            let price = target.measure(Shape::Main, 20, 20)?.elapsed;
            same = if price > TRACED_NS && price < last * 1.3 { same + 1 } else { 0 };
            last = price;
        }
        Ok(attached)
    }
}

/// A tool at work.
#[derive(Debug)]
pub struct Attached {
    child: Ending,
    name: &'static str,
}

impl Attached {
    /// Ends it, and waits until its probes are gone.
    pub fn end(mut self) -> Result<()> {
        kill(Pid::from_raw(self.child.0.id() as i32), Signal::SIGINT)?;
        let end = Instant::now() + PATIENCE;
        while self.child.0.try_wait()?.is_none() {
            ensure!(Instant::now() < end, "{} did not end within a minute", self.name);
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// The C library that a process has mapped.
fn c_library(pid: u32) -> Result<PathBuf> {
    mappings(pid)?
        .into_iter()
        .find_map(|mapping| match mapping.kind {
            MappingKind::File { path, .. } => {
                path.file_name()?.to_str()?.starts_with("libc.so").then(|| path.to_path_buf())
            }
            _ => None,
        })
        .with_context(|| format!("process {pid} has no libc.so mapped"))
}

/// A program of that name.
pub fn in_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}
