//! When what is mapped at an address was not what the walker took it for.
//!
//! The walker's tables follow a process's mappings some milliseconds late. A
//! walk that came between a change and their update used the table of a file
//! that was not there any more; its stack must not pass for a true one.

use std::collections::VecDeque;

use super::rings::Stack;

/// Changes that are remembered one by one.
const KEPT: usize = 1024;

/// One change: code came to a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// First address.
    pub begin: u64,
    /// First address behind it.
    pub end: u64,
    /// When it happened, or could have at the earliest: CLOCK_MONOTONIC, ns.
    pub from_ns: u64,
    /// The walker had a table for what was there before. If it had none, only a
    /// walk that went on by the frame pointer can have been misled.
    pub replaces_code: bool,
}

/// A change that the walker knows of.
#[derive(Clone, Copy, Debug)]
struct Settled {
    change: Change,
    /// Up to this time a walk may have used the table of what was there before.
    removed_ns: u64,
    /// From then on up to this time there was no table, and a walk may have gone
    /// on by the frame pointer. [`OPEN`]: there is none yet.
    inserted_ns: u64,
}

/// Not yet.
const OPEN: u64 = u64::MAX;

/// The changes in one process's code.
#[derive(Debug, Default)]
pub struct Changes {
    settled: VecDeque<Settled>,
    /// The walker does not know them yet.
    pending: Vec<Change>,
    /// No telling of walks up to this time: their changes were forgotten.
    /// [`OPEN`]: of none, until all tables are there.
    forgotten_ns: u64,
}

impl Changes {
    /// Code came to a place, and the walker has not been told.
    pub fn add(&mut self, change: Change) {
        if self.pending.len() < KEPT {
            self.pending.push(change);
        } else {
            let from_ns = self.pending.iter().map(|change| change.from_ns).min();
            let from_ns = from_ns.unwrap_or(change.from_ns).min(change.from_ns);
            let all = Change { begin: 0, end: u64::MAX, from_ns, replaces_code: true };
            self.pending = vec![all];
        }
    }

    /// Whether a change is pending that touches a range.
    pub fn pending_in(&self, begin: u64, end: u64) -> bool {
        self.pending.iter().any(|change| change.begin < end && begin < change.end)
    }

    /// What was stale has been taken out of the walker's tables, for everything
    /// that was pending; [`Changes::inserted`] follows.
    ///
    /// That what is true cannot be doubted for ever needs both times: a call site
    /// is announced once, and the first true walk may come right after the new
    /// table does.
    pub fn removed(&mut self, removed_ns: u64) {
        let settled = |change| Settled { change, removed_ns, inserted_ns: OPEN };
        self.settled.extend(self.pending.drain(..).map(settled));
        while self.settled.len() > KEPT {
            let forgotten = self.settled.pop_front().map_or(0, |settled| settled.inserted_ns);
            self.forgotten_ns = self.forgotten_ns.max(forgotten);
        }
    }

    /// All that is new has been put into the walker's tables.
    pub fn inserted(&mut self, inserted_ns: u64) {
        for settled in self.settled.iter_mut().rev() {
            if settled.inserted_ns != OPEN {
                break;
            }
            settled.inserted_ns = inserted_ns;
        }
        if self.forgotten_ns == OPEN {
            self.forgotten_ns = inserted_ns;
        }
    }

    /// Whether a place is known to have no table yet.
    pub fn is_open(&self, begin: u64, end: u64) -> bool {
        let open = self.settled.iter().rev().take_while(|settled| settled.inserted_ns == OPEN);
        let mut places = open.map(|settled| &settled.change).chain(&self.pending);
        places.any(|change| change.begin <= begin && end <= change.end)
    }

    /// Whether a stack may be wrong.
    pub fn misled(&self, stack: &Stack) -> bool {
        let hits = |settled: &Settled| {
            let by_frame_pointer = stack.frame_pointer_steps > 0;
            let until = if by_frame_pointer { settled.inserted_ns } else { settled.removed_ns };
            stack.time_ns <= until && settled.change.hits(stack)
        };
        stack.time_ns <= self.forgotten_ns
            || self.misled_by_pending(stack)
            || self.settled.iter().any(hits)
    }

    /// The same, for a stack that has been looked at with the settled ones.
    pub fn misled_by_pending(&self, stack: &Stack) -> bool {
        self.pending.iter().any(|change| change.hits(stack))
    }

    /// Whether nothing is pending.
    pub fn all_settled(&self) -> bool {
        self.pending.is_empty()
    }
}

impl Change {
    /// Whether a stack leads through the place, and was walked afterwards.
    fn hits(&self, stack: &Stack) -> bool {
        self.from_ns <= stack.time_ns
            && (self.replaces_code || stack.frame_pointer_steps > 0)
            // A call may be the last instruction, and return behind it.
            && stack.frames.iter().any(|&at| self.begin <= at && at <= self.end)
    }
}

/// Everything may have changed.
pub const ALL: Change = Change { begin: 0, end: u64::MAX, from_ns: 0, replaces_code: true };

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(time_ns: u64, frames: &[u64], frame_pointer_steps: u32) -> Stack {
        Stack {
            slot: 0,
            site: 1,
            epoch: 0,
            end: 1,
            frame_pointer_steps,
            time_ns,
            instructions: 0,
            frames: frames.into(),
        }
    }

    fn change(from_ns: u64) -> Change {
        Change { begin: 0x1000, end: 0x2000, from_ns, replaces_code: true }
    }

    /// Check that exactly the stacks are doubted that were walked between a
    /// change and the walker's update, and that lead through the place.
    #[test]
    fn window() {
        let mut changes = Changes::default();
        changes.add(change(100));
        let through = |time| stack(time, &[0x500, 0x1800], 0);
        assert!(!changes.misled(&through(99)));
        assert!(changes.misled(&through(100)));
        assert!(changes.misled(&through(u64::MAX)), "the walker does not know yet");
        assert!(!changes.misled(&stack(150, &[0xfff, 0x2001], 0)), "calls elsewhere");
        assert!(changes.misled(&stack(150, &[0x2000], 0)), "a call at its very end");
        assert!(changes.pending_in(0x1fff, 0x3000) && !changes.pending_in(0x2000, 0x3000));
        changes.removed(200);
        assert!(changes.is_open(0x1000, 0x2000) && !changes.is_open(0, 0x2000));
        assert!(changes.misled(&stack(u64::MAX, &[0x1800], 1)), "there is no table yet");
        assert!(!changes.misled(&through(201)));
        changes.inserted(220);
        assert!(!changes.is_open(0x1000, 0x2000));
        assert!(!changes.pending_in(0, u64::MAX));
        assert!(changes.misled(&through(200)));
        assert!(!changes.misled(&through(201)));
        let by_frame_pointer = |time| stack(time, &[0x500, 0x1800], 1);
        assert!(changes.misled(&by_frame_pointer(220)), "there was no table yet");
        assert!(!changes.misled(&by_frame_pointer(221)));
        changes.add(Change { replaces_code: false, ..change(300) });
        assert!(!changes.misled(&through(300)), "it ended there");
        assert!(changes.misled(&stack(300, &[0x1800], 1)), "it went on by the frame pointer");
    }

    /// Check that no doubt is lost when there are too many changes.
    #[test]
    fn too_many() {
        let mut changes = Changes::default();
        for time in 0..10 * KEPT as u64 {
            changes.add(change(1000 + time));
            assert!(changes.pending.len() <= KEPT);
        }
        assert!(changes.misled(&stack(1000, &[0x1800], 0)));
        for time in 0..3 * KEPT as u64 {
            changes.removed(100_000 + time);
            changes.inserted(100_000 + time);
            changes.add(change(100_000 + time));
        }
        assert!(changes.settled.len() <= KEPT);
        assert!(changes.misled(&stack(1000, &[0x1800], 0)));
        assert!(changes.misled(&stack(101_000, &[0x1800], 0)));
        // None of their tables is there yet.
        for time in 0..3 * KEPT as u64 {
            changes.add(change(200_000 + time));
            changes.removed(200_000 + time);
        }
        assert!(changes.misled(&stack(1 << 40, &[0x1800], 0)));
        changes.inserted(300_000);
        assert!(changes.misled(&stack(300_000, &[0x1800], 0)));
        assert!(!changes.misled(&stack(300_001, &[0x1800], 1)));
    }
}
