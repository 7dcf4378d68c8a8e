//! A script for bpftrace that does what memleak does.

use std::fs::File;
use std::process::{Command, Stdio};

use anyhow::Result;

use super::process::Tool;
use super::{Attached, Options, Tracer, Way, allocator, first_line};

const SCRIPT: &str = include_str!("bpftrace.bt");

/// Entries of each of its tables: they are made at once.
const MOST: u64 = 1_200_000;

/// The script in `bpftrace.bt`.
#[derive(Clone, Copy, Debug)]
pub struct Bpftrace;

impl Tracer for Bpftrace {
    fn name(&self) -> &'static str {
        "bpftrace"
    }

    fn about(&self) -> &'static str {
        "the script leakd/examples/bench/tracer/bpftrace.bt"
    }

    fn version(&self) -> Result<String, String> {
        first_line(Command::new("bpftrace").arg("--version").stdin(Stdio::null()))
    }

    fn way(&self) -> Way {
        Way::Attach
    }

    fn attach(&mut self, pid: u32, options: &Options) -> Result<Box<dyn Attached>> {
        let mut command = Command::new("bpftrace");
        let mut script = SCRIPT.replace("ALLOCATOR", &allocator(pid)?.display().to_string());
        if !options.reports {
            script = script.replace("END {", "END { clear(@stacks);");
        }
        command.env("BPFTRACE_MAP_KEYS_MAX", options.blocks.min(MOST).to_string());
        command.args(["-p", &pid.to_string(), "-e", &script]);
        let report = File::create(&options.report)?;
        command.stdin(Stdio::null()).stdout(report).stderr(Stdio::null());
        let mut tool = Tool::start(self.name(), &mut command)?;
        tool.wait_for_probes()?;
        Ok(Box::new(tool))
    }
}
