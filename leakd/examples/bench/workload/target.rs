//! The program that is traced: `target.c`, compiled here.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use super::commanded::Commanded;
use crate::compiled::Compiled;
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
pub struct Program(Compiled);

impl Program {
    /// Compiles it.
    pub fn compile() -> Result<Self> {
        Compiled::of(SOURCE).map(Self)
    }

    /// The executable.
    pub fn path(&self) -> PathBuf {
        self.0.path()
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
