//! What was found out about a process, and what happened.

use serde::{Deserialize, Serialize};

use super::{Evidence, GovernorStep};
pub use crate::verdict::Verdict;

/// Something that happened, for `watch`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When, RFC 3339 in UTC.
    pub time: String,
    /// The process.
    pub pid: u32,
    /// When it started, in clock ticks since boot: with `pid`, who it is.
    pub start_time: u64,
    /// Its name.
    pub comm: String,
    /// Its systemd unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// What happened.
    pub kind: EventKind,
    /// What is held of it from now on.
    pub verdict: Verdict,
    /// One line for a person.
    pub message: String,
    /// What the verdict rests on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// What the governor does from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub governor: Option<GovernorStep>,
}

/// What happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The verdict changed.
    #[default]
    Verdict,
    /// A trace began.
    TraceBegan,
    /// A trace ended.
    TraceEnded,
    /// The governor took a step.
    Governor,
    /// One that a newer daemon knows.
    #[serde(other)]
    Other,
}
