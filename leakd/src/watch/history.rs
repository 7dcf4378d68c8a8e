//! A bounded memory of a series: what is recent in full, what is older by
//! minima and maxima of longer and longer spans.
//!
//! Minima, because they are what a leak raises and what a garbage collector,
//! or a cache that is emptied at times, does not.

use std::collections::VecDeque;

/// The newest values are kept as they are: five minutes of them.
const RECENT: usize = 66;
/// Seconds between two of them, if they come more often.
const SPACING: f64 = 4.5;
/// Spans in seconds, and how many of them are kept: two hours, two days.
const LEVELS: [(f64, usize); 2] = [(60.0, 120), (1800.0, 96)];

/// A value at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Seconds, on the clock of the watch.
    pub time: f64,
    /// Bytes.
    pub bytes: u64,
}

/// Values of a span of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// When it began, in seconds.
    pub begin: f64,
    /// The time of the least value.
    pub least_at: f64,
    /// The least value, in bytes.
    pub least: u64,
    /// The greatest value, in bytes.
    pub most: u64,
}

/// A series. At most 8 KiB.
#[derive(Clone, Debug, Default)]
pub struct History {
    recent: VecDeque<Sample>,
    levels: [VecDeque<Span>; LEVELS.len()],
}

impl History {
    /// Adds a value. Times must not go backwards; one that does is left out.
    pub fn push(&mut self, time: f64, bytes: u64) {
        if self.recent.back().is_some_and(|last| time <= last.time) {
            return;
        }
        // The newest value always counts; those before it are thinned.
        let count = self.recent.len();
        if count >= 2 && self.recent[count - 1].time - self.recent[count - 2].time < SPACING {
            self.recent.pop_back();
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(Sample { time, bytes });
        for (spans, (length, most)) in self.levels.iter_mut().zip(LEVELS) {
            match spans.back_mut() {
                Some(span) if time < span.begin + length => {
                    if bytes < span.least {
                        (span.least, span.least_at) = (bytes, time);
                    }
                    span.most = span.most.max(bytes);
                }
                _ => {
                    if spans.len() == most {
                        spans.pop_front();
                    }
                    spans.push_back(Span {
                        begin: time,
                        least_at: time,
                        least: bytes,
                        most: bytes,
                    });
                }
            }
        }
    }

    /// The newest values, oldest first.
    pub fn recent(&self) -> &VecDeque<Sample> {
        &self.recent
    }

    /// The spans of a level that are complete, oldest first.
    pub fn complete(&self, level: usize) -> impl Iterator<Item = &Span> {
        let spans = &self.levels[level];
        spans.iter().take(spans.len().saturating_sub(1))
    }

    /// Number of levels.
    pub const fn levels() -> usize {
        LEVELS.len()
    }

    /// The greatest value that is remembered from before `time`.
    pub fn most_before(&self, time: f64) -> Option<u64> {
        let old = |(spans, (length, _)): (&VecDeque<Span>, (f64, usize))| {
            spans.iter().filter(|span| span.begin + length <= time).map(|span| span.most).max()
        };
        self.levels.iter().zip(LEVELS).filter_map(old).max()
    }

    /// The series for people: what is remembered, from coarse to fine.
    pub fn series(&self) -> Vec<Sample> {
        let mut series = Vec::new();
        let mut until = self.recent.front().map_or(f64::MAX, |first| first.time);
        for spans in &self.levels {
            let older: Vec<Sample> = spans
                .iter()
                .filter(|span| span.least_at < until)
                .map(|span| Sample { time: span.least_at, bytes: span.least })
                .collect();
            until = older.first().map_or(until, |first| first.time);
            series.splice(0..0, older);
        }
        series.extend(&self.recent);
        series
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Check that the memory is bounded, in order, and forgets no minimum
        /// and no maximum of the last hour.
        #[test]
        fn bounded(steps in prop::collection::vec((0.01f64..200.0, 0u64..1 << 40), 1..3000)) {
            let mut history = History::default();
            let (mut time, mut values) = (0.0, Vec::new());
            for (step, bytes) in steps {
                time += step;
                history.push(time, bytes);
                values.push((time, bytes));
            }
            prop_assert!(history.recent.len() <= RECENT);
            for (spans, (_, most)) in history.levels.iter().zip(LEVELS) {
                prop_assert!(spans.len() <= most);
            }
            let series = history.series();
            prop_assert!(series.windows(2).all(|pair| pair[0].time < pair[1].time));
            prop_assert!(series.iter().all(|s| values.contains(&(s.time, s.bytes))));
            prop_assert_eq!(series.last().map(|s| (s.time, s.bytes)), values.last().copied());
            let last_hour = || values.iter().filter(|(at, _)| *at > time - 3600.0).map(|v| v.1);
            // Where none had to be left out, the least value is there.
            if values.windows(2).all(|pair| pair[1].0 - pair[0].0 >= SPACING) {
                prop_assert!(series.iter().map(|s| s.bytes).min() <= last_hour().min());
            }
            prop_assert!(history.most_before(f64::MAX) >= last_hour().max());
        }
    }

    /// Check that values that come often leave room for five minutes.
    #[test]
    fn thinned() {
        let mut history = History::default();
        for step in 0..1200u32 {
            history.push(f64::from(step) * 0.5, u64::from(step));
        }
        let (first, last) = (history.recent[0], history.recent[history.recent.len() - 1]);
        assert_eq!(last.bytes, 1199);
        assert!((270.0..310.0).contains(&(last.time - first.time)), "{first:?} {last:?}");
    }

    /// Check that a clock that goes backwards is left out.
    #[test]
    fn backwards() {
        let mut history = History::default();
        history.push(10.0, 1);
        history.push(9.0, 2);
        history.push(10.0, 3);
        assert_eq!(history.series(), [Sample { time: 10.0, bytes: 1 }]);
    }
}
