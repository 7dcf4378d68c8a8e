//! A program of ours under a tracer, from its start to the tracer's report.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use tempfile::TempDir;

use crate::child::resident_bytes;
use crate::tracer::{Attached, Cost, Options, Told, Tracer, Way, Wrapped};
use crate::workload::commanded::Commanded;

/// How long a report may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A program under a tracer, or under none.
pub struct Session {
    /// The program.
    pub program: Commanded,
    attached: Option<Box<dyn Attached>>,
    wrapped: Wrapped,
    report: PathBuf,
    directory: TempDir,
}

/// What is there when it has ended.
#[derive(Debug)]
pub struct Ended {
    /// The tracer's report.
    pub report: PathBuf,
    /// From the request for the report until it was there.
    pub seconds: f64,
    /// What the tracer said.
    pub told: Told,
    _directory: TempDir,
}

impl Session {
    /// Starts a program; `before` is what it does before anything can attach. The
    /// tracer makes room for so many blocks, of which leakd ranks the older ones.
    pub fn start(
        tracer: Option<&mut (dyn Tracer + 'static)>,
        program: &Path,
        (blocks, min_age): (u64, Duration),
        before: impl FnOnce(&mut Commanded) -> Result<()>,
    ) -> Result<Self> {
        let directory = TempDir::with_prefix("session-")?;
        let mut report = directory.path().join("report");
        let options = Options { blocks, report: report.clone(), reports: true, min_age };
        let Some(tracer) = tracer else {
            let mut program = Commanded::start(&mut Command::new(program))?;
            before(&mut program)?;
            let wrapped = Wrapped::default();
            return Ok(Self { program, attached: None, wrapped, report, directory });
        };
        let wrapped = match tracer.way() {
            Way::Wrap => tracer.wrap(directory.path())?,
            Way::Attach => Wrapped::default(),
        };
        let mut program = Commanded::start(&mut wrapped.command(program))?;
        let mut attached = None;
        match tracer.way() {
            Way::Wrap => report.clone_from(&wrapped.report),
            Way::Attach => {
                before(&mut program)?;
                attached = Some(tracer.attach(program.pid(), &options)?);
            }
        }
        Ok(Self { program, attached, wrapped, report, directory })
    }

    /// Resident memory of the program.
    pub fn resident_bytes(&self) -> Option<u64> {
        resident_bytes(self.program.pid())
    }

    /// What the tracer takes by itself.
    pub fn cost(&self) -> Cost {
        let tool = self.attached.as_ref().or(self.wrapped.beside.as_ref());
        tool.map(|tool| tool.cost()).unwrap_or_default()
    }

    /// Has the tracer report: of those that are in the program that takes its end.
    pub fn end(mut self) -> Result<Ended> {
        let start = Instant::now();
        let mut told = Told::default();
        if let Some(attached) = self.attached.take() {
            told = attached.end()?;
        } else {
            self.program.finish(PATIENCE)?;
            if let Some(beside) = self.wrapped.beside.take() {
                told = beside.end()?;
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        Ok(Ended { report: self.report, seconds, told, _directory: self.directory })
    }
}
