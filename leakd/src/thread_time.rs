//! Processor time, for limits on work that must hold, and not trip over a busy
//! machine.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// Wall-clock time in units of processor time: for slow disks, and for machines
/// on which this process is one of many.
pub(crate) const WALL_FACTOR: u32 = 10;

/// A limit on processor time of this thread; on wall-clock time, one
/// [`WALL_FACTOR`] times as long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    processor: Duration,
    wall: Instant,
}

impl Deadline {
    /// So much from now on.
    pub(crate) fn after(time: Duration) -> Self {
        Self { processor: thread_time() + time, wall: Instant::now() + time * WALL_FACTOR }
    }

    /// Whether it has passed. To be asked by the thread that made it.
    pub(crate) fn has_passed(self) -> bool {
        thread_time() > self.processor || Instant::now() > self.wall
    }
}

/// Processor time that this thread has used.
pub(crate) fn thread_time() -> Duration {
    // Fails only for clocks that do not exist.
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that waiting does not count, and that work does.
    #[test]
    fn counts_work() {
        let deadline = Deadline::after(Duration::from_millis(20));
        std::thread::sleep(Duration::from_millis(40));
        assert!(!deadline.has_passed(), "it slept");
        let mut sum = 0u64;
        while !deadline.has_passed() {
            sum = std::hint::black_box(sum.wrapping_mul(31) + 1);
        }
        assert!(thread_time() >= Duration::from_millis(20));
    }
}
