//! What the parts of `leakctl top` say to each other.

use ratatui::crossterm::event::Event;

use crate::protocol::{Ask, ProcessView, Status, Targets};
use crate::report::model::Target;

/// What the state is updated by.
#[derive(Debug)]
pub enum Message {
    /// A key, the mouse, a new size.
    Input(Event),
    /// The daemon's own state.
    Status(Box<Status>),
    /// The processes.
    Processes(Targets),
    /// One process with its series.
    Detail(Box<ProcessView>),
    /// The call sites of a process; `Err`: why there are none.
    Sites(super::state::Who, Result<Box<Target>, String>),
    /// What became of an attach or detach.
    Done(Result<String, String>),
    /// Nobody answers.
    Lost(String),
    /// Somebody wants us to end: a signal, or the terminal has gone.
    End,
}

/// What is to be asked again and again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Nothing.
    pub paused: bool,
    /// The order of the processes: it decides who is left out.
    pub sort: crate::protocol::Sort,
    /// The series of this process.
    pub series: Option<u32>,
    /// The call sites of this process, at most so many.
    pub sites: Option<(super::state::Who, usize)>,
}

/// What the state wants of whoever asks.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// From now on.
    Want(Wants),
    /// Once.
    Do(Ask),
    /// All that is wanted, at once.
    Refresh,
}
