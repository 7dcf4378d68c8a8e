//! What is traced: one file a workload.

pub mod commanded;
pub mod compiler;
pub mod loops;
pub mod nginx;
pub mod pgbench;
pub mod postgres;
pub mod python;
pub mod redis;
pub mod sqlite;
pub mod target;

use std::time::Duration;

use anyhow::Result;

use crate::tracer::{Way, Wrapped};

/// Something that allocates, and says how fast it is.
pub trait Workload {
    /// Its name in the tables.
    fn name(&self) -> &'static str;

    /// What it counts: "requests".
    fn unit(&self) -> &'static str;

    /// What a latency is of, if it has one.
    fn latency_of(&self) -> Option<&'static str> {
        None
    }

    /// Its cases, each measured by itself in the same process; one without a name
    /// if there is but one.
    fn cases(&self) -> Vec<String> {
        vec![String::new()]
    }

    /// What is missing on this machine.
    fn missing(&self) -> Option<String>;

    /// Why it cannot be traced in some way.
    fn unfit(&self, _way: Way) -> Option<&'static str> {
        None
    }

    /// Whether a measurement ends the process.
    fn once(&self) -> bool {
        false
    }

    /// Starts it.
    fn start(&mut self, wrapped: &Wrapped) -> Result<Box<dyn Running>>;
}

/// A workload that runs.
pub trait Running {
    /// The process that is traced.
    fn pid(&self) -> u32;

    /// Has it work for about so long on one of its cases.
    fn measure(&mut self, case: usize, duration: Duration) -> Result<Sample>;
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Units of work in a second: of a server in a second, of a program that works
    /// alone in a second of CPU time.
    pub throughput: f64,
    /// Median latency in nanoseconds.
    pub p50: Option<f64>,
    /// The latency that one of a hundred exceeds, in nanoseconds.
    pub p99: Option<f64>,
}

/// All workloads, in the order of the tables.
pub fn all() -> Vec<Box<dyn Workload>> {
    vec![
        Box::new(loops::Loops::all()),
        Box::new(nginx::Nginx),
        Box::new(redis::Redis),
        Box::new(pgbench::Pgbench),
        Box::new(python::Python),
        Box::new(sqlite::Sqlite::default()),
        Box::new(compiler::Compiler::default()),
    ]
}

/// Those of a quick run.
pub fn quick() -> Vec<Box<dyn Workload>> {
    vec![Box::new(loops::Loops::quick()), Box::new(nginx::Nginx)]
}
