//! What the daemon answers.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Event, ProcessView, Status, VERSION};
use crate::report::Report;
use crate::report::scan::ScanReport;

/// One answer: `{"v":1,"answer":"status", ...}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// [`VERSION`].
    pub v: u32,
    /// That of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    /// The answer.
    #[serde(flatten)]
    pub answer: Answer,
}

impl Reply {
    /// An answer of this version.
    pub fn new(id: Option<Value>, answer: Answer) -> Self {
        Self { v: VERSION, id, answer }
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
#[allow(clippy::large_enum_variant)] // made once for each request
pub enum Answer {
    /// To `status`.
    Status(Status),
    /// To `targets`.
    Targets(Targets),
    /// To `report`.
    Report {
        /// The document that `docs/REPORT.md` describes.
        report: Report,
    },
    /// To `watch`, at once.
    Watching(Welcome),
    /// To `watch`, as it happens.
    Event {
        /// What happened.
        event: Event,
    },
    /// To `watch`: the client was too slow for this many events.
    Missed {
        /// Events.
        count: u64,
    },
    /// To `watch`, when nothing happened for 15 seconds.
    Idle {},
    /// To `attach`.
    Attached(Attached),
    /// To `kernel`.
    KernelAttached(KernelAttached),
    /// To `detach` and `set`.
    Done(Done),
    /// To `scan`.
    Scan {
        /// The document that `docs/SCAN.md` describes.
        report: ScanReport,
    },
    /// To anything.
    Error(Failure),
}

impl Answer {
    /// That it was not done, and why.
    pub fn failed(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Error(Failure::new(code, message))
    }
}

/// Processes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Targets {
    /// In the order that was asked for.
    pub processes: Vec<ProcessView>,
    /// Processes that fit the question and were over the limit.
    pub omitted: usize,
}

/// The watch has begun.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// Verdicts that stand already.
    pub standing: Vec<Event>,
}

/// A process is under trace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Attached {
    /// The process.
    pub pid: u32,
    /// When it started, in clock ticks since boot: with `pid`, who it is.
    pub start_time: u64,
    /// Its name.
    pub comm: String,
    /// Functions under probe.
    pub functions: usize,
    /// The files that they are in.
    pub modules: Vec<String>,
    /// Those whose probe the kernel single-steps, which is slow.
    pub single_stepped: Vec<String>,
    /// It was under trace already, and goes on as it was asked for now.
    pub already: bool,
}

/// The kernel's own memory is under trace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelAttached {
    /// What was asked for, in some words.
    pub scope: String,
    /// The kinds of memory that are traced.
    pub traced: Vec<String>,
    /// Those that this kernel does not let be traced.
    pub not_traced: Vec<NotTraced>,
    /// The kernel hides its addresses: call sites have no names.
    pub nameless: bool,
}

/// A kind of memory that cannot be traced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotTraced {
    /// The kind.
    pub kind: String,
    /// Why.
    pub reason: String,
}

/// It was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// One line for a person.
    pub message: String,
}

/// It was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Failure {
    /// For programs.
    pub code: ErrorCode,
    /// One line for a person: what is wrong and what to do.
    pub message: String,
}

impl Failure {
    /// Something that was not done, and why.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// It cannot be understood.
    BadRequest,
    /// Another version of the protocol.
    Version,
    /// The request, or what it asks for, is too large.
    TooLarge,
    /// The client may not do that.
    Forbidden,
    /// There is no such process, or nothing is known of it.
    NotFound,
    /// The process cannot be traced, or nothing can.
    CannotTrace,
    /// Too many clients, or too many of the same kind of request.
    Busy,
    /// A fault of the daemon.
    Internal,
    /// One that a newer daemon knows.
    #[serde(other)]
    Other,
}
