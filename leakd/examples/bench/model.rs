//! What a run found: the one model that all renderers read.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::statistics::Summary;
use crate::tracer::{FLOOR, LEAKD};

/// The name and version of the format.
pub const SCHEMA: &str = "leakd.bench/2";

/// A whole run, or several on the same machine put together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Document {
    /// [`SCHEMA`].
    pub schema: String,
    /// When it began, RFC 3339 in UTC.
    pub started: String,
    /// How long it took.
    pub seconds: f64,
    /// Whether it was the short one.
    pub quick: bool,
    /// How often everything was measured, in turn.
    pub rounds: u32,
    /// What it ran on.
    pub machine: Machine,
    /// Load average before and after.
    pub load: (f64, f64),
    /// What traced.
    pub tracers: Vec<About>,
    /// What tracing costs.
    pub overhead: Vec<Overhead>,
    /// Whether a planted leak was found.
    pub accuracy: Vec<Accuracy>,
    /// Many outstanding blocks.
    pub scale: Vec<Scale>,
    /// What nothing leads to.
    pub scan: Vec<Scan>,
    /// Against what was committed.
    pub regression: Option<Regression>,
    /// What was to be reached.
    pub goals: Vec<Goal>,
}

impl Document {
    /// Takes over what a later document has measured.
    pub fn merge(&mut self, later: Self) -> Result<()> {
        ensure!(
            self.machine == later.machine,
            "{} and {} are two machines: their results cannot be put together",
            self.machine.line(),
            later.machine.line()
        );
        for one in later.overhead {
            match self.overhead.iter_mut().find(|own| own.title() == one.title()) {
                Some(own) => *own = one,
                None => self.overhead.push(one),
            }
        }
        for tracer in later.tracers {
            if !self.tracers.iter().any(|own| own.name == tracer.name) {
                self.tracers.push(tracer);
            }
        }
        replace(&mut self.accuracy, later.accuracy);
        replace(&mut self.scale, later.scale);
        replace(&mut self.scan, later.scan);
        self.regression = later.regression.or(self.regression.take());
        self.seconds += later.seconds;
        self.load = (self.load.0.max(later.load.0), self.load.1.max(later.load.1));
        Ok(())
    }
}

fn replace<T>(own: &mut Vec<T>, later: Vec<T>) {
    if !later.is_empty() {
        *own = later;
    }
}

/// A tracer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    /// Its name in the tables.
    pub name: String,
    /// What it is, and how it is run here.
    pub about: String,
    /// Its version.
    pub version: Option<String>,
    /// Why it is not there.
    pub missing: Option<String>,
}

/// One workload, by all tracers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Overhead {
    /// The workload's name.
    pub workload: String,
    /// What of it, where it has several cases.
    pub case: String,
    /// What is counted, each second: "requests".
    pub unit: String,
    /// What a latency is of: null if there is none.
    pub latency_of: Option<String>,
    /// A row for each tracer.
    pub rows: Vec<Row>,
}

impl Overhead {
    /// Workload and case.
    pub fn title(&self) -> String {
        match self.case.as_str() {
            "" => self.workload.clone(),
            case => format!("{}, {case}", self.workload),
        }
    }

    /// What was measured of a tracer.
    pub fn figures(&self, tracer: &str) -> Option<&Figures> {
        self.rows.iter().find(|row| row.tracer == tracer)?.figures.as_ref()
    }
}

/// One tracer on one workload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// The tracer's name.
    pub tracer: String,
    /// Why there are no figures.
    pub missing: Option<String>,
    /// What was measured.
    pub figures: Option<Figures>,
}

/// What tracing did. Ratios are taken round by round, each to the untraced
/// measurement next to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figures {
    /// Throughput over that of the untraced: 1 costs nothing.
    pub throughput: Summary,
    /// The values that it is the summary of.
    pub rounds: Vec<f64>,
    /// Median latency over that of the untraced.
    pub p50: Option<Summary>,
    /// The latency that one of a hundred exceeds, over that of the untraced.
    pub p99: Option<Summary>,
    /// CPU time of the tracer's own processes, in percent of one CPU.
    pub tracer_cpu_percent: Option<f64>,
    /// Resident memory of the tracer's own processes, and what the traced one has
    /// more than the untraced.
    pub resident_bytes: Option<f64>,
    /// Memory that the kernel charges its tables to.
    pub kernel_bytes: Option<f64>,
    /// Events that it says it lost; null: it does not tell.
    pub lost: Option<u64>,
    /// leakd's throughput over this one's, round by round; null for leakd.
    pub leakd_over: Option<Summary>,
}

/// Whether a tracer found a planted leak.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Accuracy {
    /// The tracer's name.
    pub tracer: String,
    /// Why there are no figures.
    pub missing: Option<String>,
    /// The planted leak's place in its list, from 1; null: not in it.
    pub rank: Option<usize>,
    /// How many call sites it lists.
    pub listed: usize,
    /// Blocks at that place, over those that were planted.
    pub blocks: Option<f64>,
    /// Bytes at that place, over those that were planted.
    pub bytes: Option<f64>,
    /// Frames of the stack that are right, from the innermost on.
    pub frames: usize,
    /// Frames that the stack has.
    pub frames_of: usize,
    /// It said that it is a leak, not only that it is held.
    pub called_leak: bool,
}

/// A process with many outstanding blocks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scale {
    /// The tracer's name.
    pub tracer: String,
    /// Blocks that the process holds.
    pub blocks: u64,
    /// Why there are no figures.
    pub missing: Option<String>,
    /// Time in which they were allocated, over that of the untraced.
    pub slower: Option<f64>,
    /// Rate of pairs of malloc and free beside them, over that of the untraced.
    pub throughput: Option<f64>,
    /// Memory for each block: the tracer's, the kernel's, what the process has more.
    pub bytes_each: Option<f64>,
    /// From the request for a report until it is there, in seconds.
    pub report_seconds: Option<f64>,
    /// Blocks in the report, over those that there are.
    pub seen: Option<f64>,
    /// Blocks that it says it lost; null: it does not tell.
    pub lost: Option<u64>,
}

/// Finding what nothing leads to any more.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scan {
    /// The tracer's name.
    pub tracer: String,
    /// Blocks of the process.
    pub blocks: u64,
    /// Bytes of each.
    #[serde(default)]
    pub block_bytes: u64,
    /// Memory that was looked at in a second, in bytes; null: it does not tell.
    #[serde(default)]
    pub bytes_per_second: Option<f64>,
    /// Why there are no figures.
    pub missing: Option<String>,
    /// How long it took, in seconds.
    pub seconds: Option<f64>,
    /// Lost blocks that it found, over those that there are.
    pub found: Option<f64>,
    /// Blocks that it wrongly calls lost.
    pub wrong: Option<u64>,
    /// Throughput of the process meanwhile, over that before; null: it had ended.
    pub throughput: Option<f64>,
}

/// What was found against what was committed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Regression {
    /// Of which kernel the counts on record are.
    pub record: String,
    /// The lines.
    pub lines: Vec<Compared>,
}

/// One figure and the one on record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Compared {
    /// Its name.
    pub name: String,
    /// On record.
    pub recorded: Option<f64>,
    /// Now.
    pub now: f64,
    /// Whether it is noisy, and so never fails.
    pub noisy: bool,
    /// Whether it has grown beyond what is allowed.
    pub failed: bool,
}

/// What was to be reached.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Goal {
    /// Of what.
    pub name: String,
    /// At least this.
    pub at_least: f64,
    /// What was found.
    pub value: Option<Summary>,
    /// What nobody can exceed on this machine, by the same run.
    #[serde(default)]
    pub bound: Option<Summary>,
    /// What bounds it on this machine, or what else there is to know.
    pub note: String,
}

impl Goal {
    /// What became of it, in words.
    pub fn outcome(&self) -> Outcome {
        let reached = |summary: Option<Summary>| Some(summary?.median >= self.at_least);
        match (reached(self.value), reached(self.bound)) {
            (None, _) => Outcome::NotMeasured,
            (Some(true), _) => Outcome::Met,
            (Some(false), Some(false)) => Outcome::OutOfReach,
            (Some(false), _) => Outcome::Missed,
        }
    }
}

/// What became of a goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was reached.
    Met,
    /// It was not.
    Missed,
    /// It was not, and cannot be on this machine.
    OutOfReach,
    /// Nobody knows.
    NotMeasured,
}

impl Outcome {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "NOT MET",
            Self::OutOfReach => "NOT MET; out of reach here",
            Self::NotMeasured => "not measured",
        }
    }
}

/// Whether a tracer is another tool, and not a part of leakd.
pub fn is_peer(tracer: &str) -> bool {
    tracer != FLOOR && !tracer.starts_with(LEAKD)
}
