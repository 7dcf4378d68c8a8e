//! A tracer that is a process of its own.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use super::kernel_memory::Group;
use super::{Attached, Cost, Told};
use crate::child::{Ending, cpu_seconds, resident_bytes};

/// How long a tool may take to attach, and to end.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A tool at work.
#[derive(Debug)]
pub struct Tool {
    /// The process; dropped before its cgroup.
    pub child: Ending,
    group: Option<Group>,
    name: &'static str,
}

impl Tool {
    /// Starts it in a cgroup of its own.
    pub fn start(name: &'static str, command: &mut Command) -> Result<Self> {
        let group = Group::make();
        if let Some(group) = &group {
            group.take_in(command)?;
        }
        Ok(Self { child: Ending::start(command)?, group, name })
    }

    /// Waits until it has set all of its probes: it opens descriptors for them, one
    /// by one, and says nothing when it is done.
    pub fn wait_for_probes(&mut self) -> Result<()> {
        const STILL: Duration = Duration::from_millis(400);
        let end = Instant::now() + PATIENCE;
        let (mut last, mut since) = (0, Instant::now());
        while last == 0 || since.elapsed() < STILL {
            if let Some(status) = self.child.0.try_wait()? {
                bail!("{} ended at once ({status})", self.name);
            }
            ensure!(Instant::now() < end, "{} did not attach within a minute", self.name);
            thread::sleep(Duration::from_millis(20));
            let probes = self.probes()?;
            if probes != last {
                (last, since) = (probes, Instant::now());
            }
        }
        Ok(())
    }

    /// Its descriptors of probes.
    fn probes(&self) -> Result<usize> {
        let directory = format!("/proc/{}/fd", self.child.0.id());
        let entries =
            fs::read_dir(&directory).with_context(|| format!("{} has gone", self.name))?;
        let links = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        let is_probe = |link: &std::path::PathBuf| {
            let name = link.to_string_lossy();
            name.contains("bpf_link") || name.contains("bpf-link") || name.contains("[perf_event]")
        };
        Ok(links.filter(is_probe).count())
    }
}

impl Attached for Tool {
    fn cost(&self) -> Cost {
        let pid = self.child.0.id();
        Cost {
            cpu_seconds: cpu_seconds(pid),
            resident_bytes: resident_bytes(pid),
            kernel_bytes: self.group.as_ref().and_then(|group| group.bytes().ok()),
        }
    }

    fn end(mut self: Box<Self>) -> Result<Told> {
        self.child.end(Signal::SIGINT, PATIENCE).context(self.name)?;
        Ok(Told::default())
    }
}
