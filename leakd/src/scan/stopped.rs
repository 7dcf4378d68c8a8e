//! One look at a process that is stopped: exact, and as long as it takes.

use std::time::{Duration, Instant};

use super::allocator::Allocator;
use super::index::BlockIndex;
use super::memory::Memory;
use super::round::Round;
use super::threads::stop;
use super::{How, Ledger, Outcome, ScanError, settle};

/// Stops a process, for `max_pause` at most, and looks at it once.
///
/// # Errors
/// See [`ScanError`]. The process runs on in any case.
pub fn scan(
    pid: u32,
    threads: usize,
    max_pause: Duration,
    ledger: &Ledger<'_>,
) -> Result<Outcome, ScanError> {
    let begin = Instant::now();
    let memory = Memory::open(pid)?;
    let deadline = Instant::now() + max_pause;
    let look = |stopped: &[stop::Thread]| -> Result<_, ScanError> {
        let blocks = ledger()?;
        let index = BlockIndex::new(blocks.clone());
        let allocator = Allocator::new(&memory.mappings()?, &index);
        let round = Round {
            memory: &memory,
            index: &index,
            known: None,
            allocator: &allocator,
            only: None,
            grain: 0,
            threads,
            deadline: Some(deadline),
        };
        let pointers: Vec<u64> = stopped.iter().map(|thread| thread.stack_pointer).collect();
        let mut found = round.look(&pointers)?;
        if found.late {
            return Err(ScanError::Pause(max_pause));
        }
        for thread in stopped {
            round.add_registers(&thread.words, &mut found.pass.pointers);
        }
        Ok((blocks, index, found))
    };
    let (looked, pause) = stop::while_stopped(pid, look)?;
    let (all, index, found) = looked?;
    let classes = found.pass.pointers.classify(index.blocks().len());
    let mut how = How {
        stopped: Some(pause),
        rounds: 1,
        whole_rounds: 1,
        exact: true,
        bytes: found.pass.bytes,
        bytes_read: found.pass.bytes,
        reading: found.took,
        unreadable: found.unreadable,
        threads_stopped: true,
        overflowed: found.pass.pointers.overflowed(),
        ..How::default()
    };
    let blocks = index.blocks().iter().copied().zip(classes).collect();
    let blocks = settle(blocks, &all, &mut how);
    how.took = begin.elapsed();
    Ok(Outcome { blocks, how })
}
