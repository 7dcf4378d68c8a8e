//! What the daemon and its clients say to each other: one JSON document a
//! line, over a Unix socket.
//!
//! `docs/PROTOCOL.md` describes it for whoever writes a client. Fields and
//! answers may be added, never renamed; a client ignores what it does not
//! know. Strings are as the machine gave them: whoever prints them to a
//! terminal makes them safe first (`terminal::safe`).

mod answer;
mod process;
mod request;
mod status;
mod verdict;

pub use answer::{
    Answer, Attached, Done, ErrorCode, Failure, KernelAttached, NotTraced, Reply, Targets, Welcome,
};
pub use process::{
    Evidence, EvidenceSite, GovernorStep, Growth, KERNEL_PID, Point, ProcessView, Stage, TraceView,
};
pub use request::{Ask, Change, Request, RequestError, Sort, Which};
pub use status::{
    ConfigView, GovernorView, KernelGrowth, KernelMemoryView, KernelTracingView, OwnView, Status,
    TracingView, WatchView,
};
pub use verdict::{Event, EventKind, Verdict};

/// The version of the protocol: `v` of each request and answer.
pub const VERSION: u32 = 1;

/// Where the daemon listens, unless its configuration says otherwise.
pub const SOCKET: &str = "/run/leakd/leakd.sock";

/// Bytes that a request may have, its newline included.
pub const REQUEST_LIMIT: usize = 64 << 10;

/// Bytes that an answer may have.
pub const ANSWER_LIMIT: usize = 32 << 20;

/// Call sites of each process in a report, at most.
pub const MOST_SITES: usize = 10_000;

#[cfg(test)]
mod tests;
