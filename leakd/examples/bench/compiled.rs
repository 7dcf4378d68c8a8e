//! Programs of ours in C, compiled where they run.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::child::in_path;

/// A program; it goes when this is dropped.
#[derive(Debug)]
pub struct Compiled {
    directory: TempDir,
}

impl Compiled {
    /// Compiles it as distributions do: without frame pointers.
    pub fn of(source: &str) -> Result<Self> {
        let directory = TempDir::with_prefix("program-")?;
        let file = directory.path().join("program.c");
        fs::write(&file, source)?;
        let mut compiler = Command::new("cc");
        compiler.args(["-O2", "-g", "-fomit-frame-pointer", "-pthread", "-o"]);
        compiler.arg(directory.path().join("program")).arg(&file);
        let status = compiler.status().context("cc, which compiles programs, cannot be started")?;
        ensure!(status.success(), "cc could not compile a program ({status})");
        Ok(Self { directory })
    }

    /// What it takes to compile one, and is not there.
    pub fn missing() -> Option<String> {
        in_path("cc").is_none().then(|| "cc is not installed".to_owned())
    }

    /// The executable.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("program")
    }
}
