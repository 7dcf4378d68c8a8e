//! When a process that grows will have used up what it may have.

use serde::{Deserialize, Serialize};

use super::survival::Interval;
use crate::watch::limit::Limit;

/// Farther away than this, growth tells nothing (a year).
const FARTHEST: f64 = 365.0 * 86_400.0;

/// Seconds until then, if it goes on as it did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimeLeft {
    /// With 95 % certainty not before that.
    pub soonest: f64,
    /// The best guess.
    pub likely: f64,
    /// Not after that; `None`: it may never be.
    pub latest: Option<f64>,
}

impl TimeLeft {
    /// With so many bytes left, at this growth in bytes a second; `None`: it does not
    /// grow, or would take more than a year.
    pub fn of(left: u64, slope: f64, interval: Interval) -> Option<Self> {
        let until = |slope: f64| {
            let seconds = left as f64 / slope;
            (slope > 0.0 && seconds <= FARTHEST).then_some(seconds)
        };
        let likely = until(slope)?;
        Some(Self {
            soonest: until(interval.high.max(slope)).unwrap_or(likely),
            likely,
            latest: until(interval.low.min(slope)),
        })
    }
}

/// When a limit will be reached, if a process goes on to grow as it did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OutOfMemory {
    /// The control group with the limit.
    pub group: String,
    /// The limit, in bytes.
    pub limit_bytes: u64,
    /// What is left of it, swap included, in bytes.
    pub left_bytes: u64,
    /// In so many milliseconds, with 95 % certainty not before.
    pub soonest_ms: u64,
    /// The best guess.
    pub likely_ms: u64,
    /// Not after that; null: it may never be.
    pub latest_ms: Option<u64>,
}

impl OutOfMemory {
    /// Under this limit, at this growth in bytes a second; `None`: as of
    /// [`TimeLeft::of`].
    pub fn of(limit: Limit, slope: f64, interval: Interval) -> Option<Self> {
        let left = TimeLeft::of(limit.left(), slope, interval)?;
        let milliseconds = |seconds: f64| (seconds * 1000.0) as u64;
        Some(Self {
            limit_bytes: limit.limit_bytes,
            left_bytes: limit.left(),
            group: limit.group,
            soonest_ms: milliseconds(left.soonest),
            likely_ms: milliseconds(left.likely),
            latest_ms: left.latest.map(milliseconds),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check the times of slopes of either sign, and that an interval with zero in it
    /// has no end.
    #[test]
    fn times() {
        let interval = |low, high| Interval { low, high };
        let left = TimeLeft::of(1000, 10.0, interval(5.0, 20.0)).unwrap();
        assert_eq!((left.soonest, left.likely, left.latest), (50.0, 100.0, Some(200.0)));
        let left = TimeLeft::of(1000, 10.0, interval(-1.0, 20.0)).unwrap();
        assert_eq!(left.latest, None);
        assert_eq!(TimeLeft::of(1000, 0.0, interval(-1.0, 1.0)), None);
        assert_eq!(TimeLeft::of(1000, -1.0, interval(-2.0, 1.0)), None);
        assert_eq!(TimeLeft::of(u64::MAX, 1.0, interval(0.5, 2.0)), None);
        let now = TimeLeft::of(0, 1.0, interval(0.5, 2.0)).unwrap();
        assert_eq!((now.soonest, now.likely, now.latest), (0.0, 0.0, Some(0.0)));
        // An interval that does not hold its own slope is widened.
        let odd = TimeLeft::of(1000, 10.0, interval(20.0, 5.0)).unwrap();
        assert_eq!((odd.soonest, odd.latest), (100.0, Some(100.0)));
    }
}
