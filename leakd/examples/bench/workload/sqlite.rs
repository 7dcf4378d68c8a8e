//! sqlite: inserts, each a transaction, in memory.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::commanded::Commanded;
use super::python::Simple;
use super::{Running, Workload};
use crate::child::in_path;
use crate::tracer::Wrapped;

const SOURCE: &str = include_str!("sqlite.c");
/// Comes with the package sqlite3. The program loads it by name, for want of its
/// headers.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/libsqlite3.so.0";

/// A loop of inserts by libsqlite3.
#[derive(Debug, Default)]
pub struct Sqlite {
    compiled: Option<TempDir>,
}

impl Workload for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite, inserts"
    }

    fn unit(&self) -> &'static str {
        "rows"
    }

    fn latency_of(&self) -> Option<&'static str> {
        Some("a row")
    }

    fn missing(&self) -> Option<String> {
        if in_path("cc").is_none() {
            return Some("cc is not installed".to_owned());
        }
        (!Path::new(LIBRARY).exists()).then(|| format!("{LIBRARY} is not there"))
    }

    fn start(&mut self, wrapped: &Wrapped) -> Result<Box<dyn Running>> {
        if self.compiled.is_none() {
            let directory = TempDir::with_prefix("sqlite-")?;
            let source = directory.path().join("sqlite.c");
            std::fs::write(&source, SOURCE)?;
            let mut compiler = Command::new("cc");
            compiler.args(["-O2", "-o"]).arg(directory.path().join("sqlite")).arg(&source);
            let status = compiler.status().context("cc cannot be started")?;
            ensure!(status.success(), "cc could not compile sqlite.c ({status})");
            self.compiled = Some(directory);
        }
        let directory = self.compiled.as_ref().map(TempDir::path).unwrap_or(Path::new("/"));
        let mut command = wrapped.command(directory.join("sqlite"));
        let mut program = Commanded::start(command.arg(LIBRARY))?;
        program.measure("1")?;
        Ok(Box::new(Simple { program, _directory: None }))
    }
}
