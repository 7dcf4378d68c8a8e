//! Loops of malloc and free.

use std::time::Duration;

use anyhow::Result;

use super::commanded::Commanded;
use super::target::Program;
use super::{Running, Sample, Workload};
use crate::compiled::Compiled;
use crate::tracer::Wrapped;

/// One loop.
#[derive(Clone, Copy, Debug)]
struct Loop {
    threads: u32,
    /// Sizes from 16 bytes to 4 KiB, 64 blocks at a time; else 64 bytes, one.
    mixed: bool,
    /// Depth of the stack, down to the first frame; 1: called near main.
    frames: u32,
}

const fn case(threads: u32, mixed: bool, frames: u32) -> Loop {
    Loop { threads, mixed, frames }
}

/// All that are measured; the first is the one that goals are set for.
const ALL: [Loop; 8] = [
    case(1, false, 1),
    case(1, false, 20),
    case(1, false, 60),
    case(1, true, 1),
    case(1, true, 20),
    case(1, true, 60),
    case(2, true, 20),
    case(4, true, 20),
];
/// Those of a quick run.
const QUICK: [Loop; 3] = [ALL[0], ALL[1], ALL[7]];

/// What the loops are called.
pub const NAME: &str = "malloc loop";

impl Loop {
    fn title(self) -> String {
        let threads = if self.threads == 1 { "thread" } else { "threads" };
        let sizes = if self.mixed { "mixed" } else { "64 B" };
        let place = match self.frames {
            1 => "near main".to_owned(),
            frames => format!("{frames} frames"),
        };
        format!("{} {threads}, {sizes}, {place}", self.threads)
    }
}

/// The loops.
#[derive(Debug)]
pub struct Loops {
    cases: &'static [Loop],
    program: Option<Program>,
}

impl Loops {
    /// All of them.
    pub const fn all() -> Self {
        Self { cases: &ALL, program: None }
    }

    /// The most telling ones.
    pub const fn quick() -> Self {
        Self { cases: &QUICK, program: None }
    }

    /// How the one that goals are set for is called.
    pub fn first() -> String {
        ALL[0].title()
    }
}

impl Workload for Loops {
    fn name(&self) -> &'static str {
        NAME
    }

    fn unit(&self) -> &'static str {
        "pairs of malloc and free"
    }

    fn latency_of(&self) -> Option<&'static str> {
        Some("16 pairs")
    }

    fn cases(&self) -> Vec<String> {
        self.cases.iter().map(|case| case.title()).collect()
    }

    fn missing(&self) -> Option<String> {
        Compiled::missing()
    }

    fn start(&mut self, wrapped: &Wrapped) -> Result<Box<dyn Running>> {
        if self.program.is_none() {
            self.program = Some(Program::compile()?);
        }
        let path = self.program.as_ref().map(Program::path).unwrap_or_default();
        let mut program = Commanded::start(&mut wrapped.command(path))?;
        // Whatever the first call of malloc sets up is done before anybody looks.
        program.measure("loop 4 1 20 2")?;
        Ok(Box::new(RunningLoops { cases: self.cases, program }))
    }
}

#[derive(Debug)]
struct RunningLoops {
    cases: &'static [Loop],
    program: Commanded,
}

impl Running for RunningLoops {
    fn pid(&self) -> u32 {
        self.program.pid()
    }

    fn measure(&mut self, case: usize, duration: Duration) -> Result<Sample> {
        let Loop { threads, mixed, frames } = self.cases[case];
        let (mixed, milliseconds) = (u32::from(mixed), duration.as_millis());
        self.program.measure(&format!("loop {threads} {mixed} {frames} {milliseconds}"))
    }
}
