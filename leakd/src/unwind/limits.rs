//! What converting one file may cost.

use std::time::Duration;

use crate::thread_time::Deadline;
use crate::unwind::ConvertError;

/// Limits for one file.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of memory, the file's sections included.
    pub bytes: u64,
    /// Processor time. On a busy machine a limit in wall-clock time would leave
    /// the largest libraries without a table just when it matters; that one is
    /// ten times as long, for slow disks.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 256 << 20, time: Duration::from_secs(1) }
    }
}

/// What is left of the limits while a file is converted, by one thread.
#[derive(Debug)]
pub(crate) struct Budget {
    limits: Limits,
    bytes_left: u64,
    deadline: Deadline,
    /// Units of work since the clock was last read.
    work: u64,
}

/// Units of work (about a byte of input each) between two looks at the clock:
/// well under a millisecond.
const WORK_PER_LOOK: u64 = 32 << 10;

impl Budget {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, bytes_left: limits.bytes, deadline: Deadline::after(limits.time), work: 0 }
    }

    /// Takes memory; never given back, since nothing large is freed before the
    /// conversion ends.
    pub(crate) fn take_bytes(
        &mut self,
        what: &'static str,
        bytes: u64,
    ) -> Result<(), ConvertError> {
        match self.bytes_left.checked_sub(bytes) {
            Some(left) => {
                self.bytes_left = left;
                Ok(())
            }
            None => Err(ConvertError::TooLarge { what, limit: self.limits.bytes }),
        }
    }

    /// Takes the memory that `vec` needs for one more element, if it must grow.
    pub(crate) fn grow<T>(
        &mut self,
        what: &'static str,
        vec: &mut Vec<T>,
    ) -> Result<(), ConvertError> {
        if vec.len() == vec.capacity() {
            let more = vec.capacity().max(1024);
            self.take_bytes(what, (more * size_of::<T>()) as u64)?;
            vec.reserve_exact(more);
        }
        Ok(())
    }

    /// Counts work, and now and then looks at the clock.
    pub(crate) fn spend(&mut self, work: u64) -> Result<(), ConvertError> {
        self.work += work;
        if self.work >= WORK_PER_LOOK {
            self.work = 0;
            if self.deadline.has_passed() {
                return Err(ConvertError::TookTooLong(self.limits.time.as_millis() as u64));
            }
        }
        Ok(())
    }
}
