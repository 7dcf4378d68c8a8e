//! sqlite: inserts, each a transaction, in memory.

use std::path::Path;

use anyhow::Result;

use super::commanded::Commanded;
use super::python::Simple;
use super::{Running, Workload};
use crate::compiled::Compiled;
use crate::tracer::Wrapped;

const SOURCE: &str = include_str!("sqlite.c");
/// Comes with the package sqlite3. The program loads it by name, for want of its
/// headers.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/libsqlite3.so.0";

/// A loop of inserts by libsqlite3.
#[derive(Debug, Default)]
pub struct Sqlite {
    compiled: Option<Compiled>,
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
        let library = || (!Path::new(LIBRARY).exists()).then(|| format!("{LIBRARY} is not there"));
        Compiled::missing().or_else(library)
    }

    fn start(&mut self, wrapped: &Wrapped) -> Result<Box<dyn Running>> {
        let compiled = match self.compiled.take() {
            Some(compiled) => compiled,
            None => Compiled::of(SOURCE)?,
        };
        let mut command = wrapped.command(compiled.path());
        self.compiled = Some(compiled);
        let mut program = Commanded::start(command.arg(LIBRARY))?;
        program.measure("1")?;
        Ok(Box::new(Simple { program, _directory: None }))
    }
}
