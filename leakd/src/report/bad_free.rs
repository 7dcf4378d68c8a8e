//! Frees that were wrong, as data.

use leakd_common::block::Block;
use serde::{Deserialize, Serialize};

use super::build::{model_frame, stack_end};
use super::input::{BadFreeSnapshot, SiteSnapshot};
use super::model::{Frame, StackEnd};

/// A free of a block that was freed already, or of what is no block; several at the
/// same call sites are one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BadFree {
    /// What was wrong.
    pub kind: BadFreeKind,
    /// How often; what follows is of the first time.
    pub count: u64,
    /// The address that was freed, in hex.
    pub address: String,
    /// The block's size; null if it is none.
    pub size_bytes: Option<u64>,
    /// The thread that freed it wrongly.
    pub thread: u32,
    /// Where that was.
    pub freed_again_at: CallStack,
    /// The thread that freed it before; null if none did.
    pub freed_thread: Option<u32>,
    /// How long before, in nanoseconds.
    pub freed_before_ns: Option<u64>,
    /// Where.
    pub freed_at: Option<CallStack>,
    /// Where it was allocated.
    pub allocated_at: Option<CallStack>,
}

/// What is wrong with a free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadFreeKind {
    /// The block was freed already.
    DoubleFree,
    /// No block that was handed out begins there.
    WrongFree,
}

/// A call stack by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallStack {
    /// Innermost frame first.
    pub stack: Vec<Frame>,
    /// Why the walk stopped.
    pub stack_end: StackEnd,
}

impl CallStack {
    fn new(site: SiteSnapshot) -> Self {
        Self {
            stack_end: stack_end(&site),
            stack: site.frames.into_iter().flatten().map(model_frame).collect(),
        }
    }
}

impl BadFree {
    pub(super) fn new(snapshot: BadFreeSnapshot) -> Self {
        let BadFreeSnapshot { bad, site, freed_at, allocated_at } = snapshot;
        let twice = freed_at.is_some();
        let block = Block { size_and_owner: bad.size_and_owner, ..Block::default() };
        Self {
            kind: if twice { BadFreeKind::DoubleFree } else { BadFreeKind::WrongFree },
            count: bad.count,
            address: format!("{:#x}", bad.address),
            size_bytes: twice.then(|| block.size()),
            thread: bad.tid,
            freed_again_at: CallStack::new(site),
            freed_thread: twice.then_some(bad.freed_tid),
            freed_before_ns: twice.then(|| bad.time_ns.saturating_sub(bad.freed_ns)),
            freed_at: freed_at.map(CallStack::new),
            allocated_at: allocated_at.map(CallStack::new),
        }
    }
}
