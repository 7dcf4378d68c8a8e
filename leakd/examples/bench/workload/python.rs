//! A python program that reads and writes JSON.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use tempfile::TempDir;

use super::commanded::Commanded;
use super::{Running, Sample, Workload};
use crate::tracer::Wrapped;

const SOURCE: &str = include_str!("python.py");

/// A python loop over `json.loads` and `json.dumps`.
#[derive(Clone, Copy, Debug)]
pub struct Python;

/// The program itself: what PATH has may be a script that starts it.
fn interpreter() -> Option<PathBuf> {
    let mut command = Command::new("/usr/bin/python3");
    let output = command.args(["-c", "import sys; print(sys.executable)"]).output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    path.is_file().then_some(path)
}

impl Workload for Python {
    fn name(&self) -> &'static str {
        "python, JSON"
    }

    fn unit(&self) -> &'static str {
        "documents"
    }

    fn latency_of(&self) -> Option<&'static str> {
        Some("a document")
    }

    fn missing(&self) -> Option<String> {
        interpreter().is_none().then(|| "/usr/bin/python3 is not installed".to_owned())
    }

    fn start(&mut self, wrapped: &Wrapped) -> Result<Box<dyn Running>> {
        let directory = TempDir::with_prefix("python-")?;
        let script = directory.path().join("loop.py");
        fs::write(&script, SOURCE)?;
        let mut command = wrapped.command(interpreter().unwrap_or_default());
        let mut program = Commanded::start(command.arg(script))?;
        program.measure("1")?;
        Ok(Box::new(Simple { program, _directory: Some(directory) }))
    }
}

/// A program whose only order is for how many milliseconds to work.
#[derive(Debug)]
pub struct Simple {
    /// The program.
    pub program: Commanded,
    /// What it needs while it runs.
    pub _directory: Option<TempDir>,
}

impl Running for Simple {
    fn pid(&self) -> u32 {
        self.program.pid()
    }

    fn measure(&mut self, _case: usize, duration: Duration) -> Result<Sample> {
        self.program.measure(&duration.as_millis().to_string())
    }
}
