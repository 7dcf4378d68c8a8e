//! Can anything in a process still reach its outstanding blocks? A conservative
//! mark from outside, over the process as it runs.
//!
//! | file | concern |
//! |---|---|
//! | [`memory`] | what is mapped and populated, and its words |
//! | [`index`] | which block an address lies in |
//! | [`pass`] | one pass over memory |
//! | [`graph`] | what the pointers mean |
//! | [`allocator`] | the allocator's heaps, and its own pointers |
//! | [`stacks`] | the dead part of stacks |
//! | [`threads`] | registers |
//! | [`round`] | one look at registers and memory |
//! | [`live`] | many looks at a process that runs |
//! | [`stopped`] | one look at a process that is stopped |
//!
//! Blocks are the ledger's. Roots are all registers, the live part of stacks, and
//! all memory that the process has written to and the ledger does not own: what is
//! older than the trace may point to a block as well.
//!
//! # Why a block that is called lost is lost, though the process runs on
//!
//! Garbage stays garbage: what nothing leads to, nothing can ever reach again. So
//! it would do to look at one moment. But a look takes time, and a pointer that
//! moves from where was not looked yet to where was looked already is missed. No
//! page tables are changed and no process is stopped to prevent that. Instead the
//! process is looked at again and again, each time in another random order, and
//! *every* pointer that any look has found counts, at once and for good: a block is
//! lost if in the union of all looks nothing leads to it.
//!
//! How sure is that? Take a set of blocks that can be reached all the time. At any
//! moment, at least one pointer into the set lies somewhere outside of it: in a
//! register, or in memory. Let it be at place `i` for a share `f(i)` of the time
//! that a look takes; these add up to 1 or more. A look visits place `i` at a
//! moment that does not depend on what the process does, and misses it there with
//! the probability `1 - f(i)`; so it misses it everywhere with the product of
//! these, which is at most `exp(-1)`. Looks are independent: after
//! [`live::ROUNDS`] = 32 of them the probability is `exp(-32)`, or one in 10^13.
//!
//! Two places that are visited at almost the same moment are not independent. They
//! are in the same unit of 256 KiB, of which a random part is read first; or the
//! pointer moves within microseconds, and then where it is at each look is chance.
//! Two equally likely places then give 2^-32.
//!
//! Large processes are looked at as a whole some times only
//! ([`live::WHOLE_ROUNDS`]). From then on, only what has changed from one look to
//! another is looked at again: pages of which no byte ever differed are taken to
//! hold still. That is where the bound does not hold: a pointer that moves between
//! pages without leaving a trace on any, and is missed by each of four looks. A
//! process whose threads slept before a look and after it, and have had no processor
//! time meanwhile, has not moved anything: that look is exact, and the last.
//!
//! Registers are sampled at moments of their own, of sleeping and of running threads
//! ([`threads`]). Vector registers are read only where threads are stopped: a
//! pointer is there while it is copied, and where it came from then too.
//!
//! # Limits
//!
//! - Memory of the heap that belongs to no block of the ledger is older than the
//!   trace, or free: allocators leave in freed blocks what was there. It is taken
//!   for a root, so that no block is called lost wrongly; what only it leads to is
//!   told apart ([`graph::Reach::Unknown`]).
//! - A value that happens to be a block's address holds it. Tags in the upper 17
//!   bits are taken off; what leads to a block then is a pointer to its inside.
//!   Pointers that are compressed to 32 bits, or xor-ed with something, are not
//!   seen: what only they lead to is called lost.
//! - Pointers outside of the process are not seen: in the kernel (an epoll's user
//!   data, io_uring, signal handlers' data), in files, in memory that leakd cannot
//!   read, such as memfd_secret(2). Of the last it is known: nothing is then called
//!   more than possibly lost.
//! - A signal stack that is a variable on the same thread's stack is taken for the
//!   end of it while a handler runs on it.

pub mod allocator;
pub mod graph;
pub mod index;
pub mod live;
pub mod memory;
pub mod pass;
pub mod round;
pub mod stacks;
pub mod stopped;
pub mod threads;

use std::io;
use std::time::Duration;

use graph::Reach;
use index::Block;
use threads::stop::StopError;

/// Reads all blocks of the ledger, as they are now.
pub type Ledger<'a> = dyn Fn() -> io::Result<Vec<Block>> + Sync + 'a;

/// What a scan found.
#[derive(Debug)]
pub struct Outcome {
    /// The blocks that were there from begin to end.
    pub blocks: Vec<(Block, Reach)>,
    /// How it was found.
    pub how: How,
}

/// How a scan was done, and what it could not see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct How {
    /// The process was stopped for so long; `None`: it ran on.
    pub stopped: Option<Duration>,
    /// Looks.
    pub rounds: u32,
    /// Of these, at all of the memory.
    pub whole_rounds: u32,
    /// The last look was at a process that did not run meanwhile.
    pub exact: bool,
    /// Bytes of the process that hold something.
    pub bytes: u64,
    /// Bytes that were looked at in all rounds together.
    pub bytes_read: u64,
    /// Time that passes over memory took.
    pub reading: Duration,
    /// Time that all of it took.
    pub took: Duration,
    /// Bytes that are there and could not be read.
    pub unreadable: u64,
    /// Threads whose registers could not be seen.
    pub unread_threads: usize,
    /// Threads were stopped, each for a moment.
    pub threads_stopped: bool,
    /// Blocks that were freed meanwhile.
    pub freed: u64,
    /// Pointers that were taken for roots because there were too many.
    pub overflowed: u64,
}

/// Why a scan failed.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The process is gone.
    #[error("the process has ended, or replaced its program, while it was looked at")]
    Gone,
    /// It was stopped for too long.
    #[error(
        "the pass was not done within --max-pause ({}); the process runs on and nothing is known",
        crate::terminal::duration(.0.as_nanos() as u64)
    )]
    Pause(Duration),
    /// Threads cannot be stopped.
    #[error(transparent)]
    Stop(#[from] StopError),
    /// Something with the system.
    #[error("cannot look into the process: {0}")]
    System(io::Error),
}

impl From<io::Error> for ScanError {
    fn from(error: io::Error) -> Self {
        match (error.raw_os_error(), error.kind()) {
            (Some(libc::ESRCH | libc::ENOENT), _) | (_, io::ErrorKind::NotFound) => Self::Gone,
            _ => Self::System(error),
        }
    }
}

impl How {
    /// Whether something was not seen that may hold pointers: no block can then be
    /// called more than possibly lost.
    fn is_incomplete(&self) -> bool {
        self.unreadable > 0 || self.unread_threads > 0
    }
}

/// Leaves out what was freed meanwhile, and claims no more than was seen.
fn settle(blocks: Vec<(Block, Reach)>, after: &[Block], how: &mut How) -> Vec<(Block, Reach)> {
    let mut still: Vec<(u64, u64)> =
        after.iter().map(|block| (block.address, block.birth_ns)).collect();
    still.sort_unstable();
    let before = blocks.len();
    let mut kept = blocks;
    kept.retain(|(block, _)| still.binary_search(&(block.address, block.birth_ns)).is_ok());
    how.freed = (before - kept.len()) as u64;
    if how.is_incomplete() {
        for (_, reach) in &mut kept {
            *reach = (*reach).max(Reach::Possibly);
        }
    }
    kept
}
