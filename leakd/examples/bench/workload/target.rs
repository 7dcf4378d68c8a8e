//! The program that is traced: `target.c`, compiled here.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::commanded::Commanded;
use crate::child::in_path;
use crate::statistics::median;

/// Its source.
pub const SOURCE: &str = include_str!("target.c");

/// Threads of [`Shape::Threads`]; `THREADS` of the source.
pub const THREADS: u32 = 4;

/// From where the pairs of malloc and free are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    /// Near main.
    Main,
    /// With a stack of 20 frames, down to the process's first.
    Deep,
    /// Near each thread's start, by [`THREADS`] threads at once.
    Threads,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Main, Self::Deep, Self::Threads];

    /// The command of the program.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Deep => "deep",
            Self::Threads => "threads",
        }
    }
}

/// The compiled program.
#[derive(Debug)]
pub struct Program {
    directory: TempDir,
}

impl Program {
    /// Compiles it, without frame pointers.
    pub fn compile() -> Result<Self> {
        let directory = TempDir::with_prefix("leakd-bench-")?;
        let source = directory.path().join("target.c");
        fs::write(&source, SOURCE)?;
        let status = Command::new("cc")
            .args(["-O2", "-fomit-frame-pointer", "-pthread", "-o"])
            .arg(directory.path().join("target"))
            .arg(&source)
            .status()
            .context("cc, which compiles the traced program, cannot be started")?;
        ensure!(status.success(), "cc could not compile the traced program ({status})");
        Ok(Self { directory })
    }

    /// What it takes to compile it, and is not there.
    pub fn missing() -> Option<String> {
        in_path("cc").is_none().then(|| "cc is not installed".to_owned())
    }

    /// The executable.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("target")
    }

    /// Starts it.
    pub fn start(&self) -> Result<Target> {
        let mut target = Target(Commanded::start(&mut Command::new(self.path()))?);
        // Whatever the first call of malloc sets up is done before anybody looks.
        target.measure(Shape::Threads, 1, 10)?;
        Ok(target)
    }
}

/// The running program.
#[derive(Debug)]
pub struct Target(Commanded);

/// What a measurement gave, in ns a pair of malloc and free.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// Elapsed: the median over the batches. With [`Shape::Threads`] the time
    /// from start to end, by the pairs of one thread.
    pub elapsed: f64,
    /// CPU time.
    pub cpu: f64,
    /// Share of the elapsed time that the only thread did not run.
    pub waited: f64,
}

impl Target {
    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Measures `batches` of `pairs` pairs of malloc and free.
    pub fn measure(&mut self, shape: Shape, batches: u32, pairs: u32) -> Result<Pair> {
        let answer = self.0.order(&format!("{} {batches} {pairs}", shape.word()))?;
        let [elapsed, cpu, each @ ..] = answer.as_slice() else {
            bail!("the traced program said too little");
        };
        let of_one = f64::from(batches) * f64::from(pairs);
        let of_all = if shape == Shape::Threads { of_one * f64::from(THREADS) } else { of_one };
        let each: Vec<f64> = each.iter().map(|&ns| ns as f64 / f64::from(pairs)).collect();
        let (elapsed, cpu) = (*elapsed as f64, *cpu as f64);
        Ok(Pair {
            elapsed: if shape == Shape::Threads { elapsed / of_one } else { median(&each) },
            cpu: cpu / of_all,
            waited: (1.0 - cpu / elapsed).max(0.0),
        })
    }

    /// Allocates `blocks` blocks from `sites` call sites and forgets them.
    pub fn leak(&mut self, blocks: u32, sites: u32) -> Result<()> {
        self.0.order(&format!("leak {blocks} {sites}")).map(drop)
    }
}
