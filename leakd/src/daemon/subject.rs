//! What the daemon keeps of a process that it has had to do with.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::active::Active;
use crate::protocol::{Event, TraceView, Verdict};
use crate::report::model;
use crate::watch::read::Identity;

/// Who a process is: its pid and when it started.
pub type Key = (u32, u64);

/// A process that is, was or is to be under trace.
#[derive(Debug)]
pub struct Subject {
    /// Who it is.
    pub identity: Arc<Identity>,
    /// Its trace, while it goes on.
    pub active: Option<Active>,
    /// How the last trace ended.
    pub last: Option<TraceView>,
    /// What the last trace found.
    pub report: Option<Box<model::Target>>,
    /// What is held of it.
    pub verdict: Verdict,
    /// The event that said so.
    pub standing: Option<Event>,
    /// It is left alone until then.
    pub rest_until: Option<Instant>,
    /// Traces in a row that found nothing.
    pub in_vain: u32,
    /// Somebody detached from it: it is left alone.
    pub let_go: bool,
    /// Why it cannot be traced.
    pub untraceable: Option<String>,
    /// When it was last of interest.
    pub touched: Instant,
}

impl Subject {
    /// One that nothing was done with yet.
    pub fn new(identity: Arc<Identity>) -> Self {
        Self {
            identity,
            active: None,
            last: None,
            report: None,
            verdict: Verdict::Undetermined,
            standing: None,
            rest_until: None,
            in_vain: 0,
            let_go: false,
            untraceable: None,
            touched: Instant::now(),
        }
    }

    /// Whether it may be traced now without being asked for.
    pub fn is_free(&self, now: Instant) -> bool {
        self.active.is_none() && !self.let_go && self.rest_until.is_none_or(|until| until <= now)
    }

    /// Leaves it alone for a while: longer each time that it was in vain.
    pub fn rest(&mut self, first: Duration, most: Duration, in_vain: bool) {
        self.in_vain = if in_vain { self.in_vain.saturating_add(1) } else { 0 };
        let factor = 1u32 << self.in_vain.saturating_sub(1).min(20);
        let length = first.checked_mul(factor).map_or(most, |rest| rest.min(most));
        self.rest_until = Some(Instant::now() + length);
    }
}

/// A process that may be traced, and how promising that is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Who it is.
    pub key: Key,
    /// The most promising has the highest.
    pub promise: f64,
}

/// Those to be traced now, most promising first, at most `room`.
pub fn choose(mut candidates: Vec<Candidate>, room: usize) -> Vec<Key> {
    candidates.sort_by(|one, other| {
        other.promise.total_cmp(&one.promise).then_with(|| one.key.cmp(&other.key))
    });
    candidates.into_iter().take(room).map(|candidate| candidate.key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the most promising are chosen, as far as there is room.
    #[test]
    fn most_promising_first() {
        let candidate = |pid, promise| Candidate { key: (pid, 1), promise };
        let all =
            vec![candidate(1, 5.0), candidate(2, 9.0), candidate(3, f64::NAN), candidate(4, 9.0)];
        assert_eq!(choose(all.clone(), 0), []);
        assert_eq!(choose(all.clone(), 3)[1..], [(2, 1), (4, 1)]);
        assert_eq!(choose(all, 9).len(), 4);
    }

    /// Check that rests grow while traces are in vain, up to the most, and
    /// begin anew after one that was not.
    #[test]
    fn rests_grow() {
        let mut subject = Subject::new(Arc::default());
        let minute = Duration::from_secs(60);
        let mut length = |in_vain| {
            subject.rest(minute, minute * 5, in_vain);
            assert!(!subject.is_free(Instant::now()));
            let until = subject.rest_until.expect("it rests");
            (until.duration_since(Instant::now()).as_secs_f64() / 60.0).round() as u32
        };
        assert_eq!([length(true), length(true), length(true), length(true)], [1, 2, 4, 5]);
        assert_eq!([length(false), length(true), length(true)], [1, 1, 2]);
        for _ in 0..100 {
            assert!(length(true) <= 5);
        }
    }
}
