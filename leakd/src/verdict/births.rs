//! When the outstanding blocks of a call site were allocated.
//!
//! A leak's are from all of the time that it was watched for, evenly; a start-up's are
//! from its beginning; those of traffic and of caches that replace their content are
//! from its end.

use leakd_common::site::{LIFETIME_BUCKETS, Site};

/// Parts of the time under trace. 60: a factor of ten finer than what is asked of
/// them, and a line of a terminal.
pub const PARTS: usize = 60;

/// Births of outstanding blocks. Bounded: it does not grow with their number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Births {
    /// The time that is divided, in nanoseconds: from the trace's begin until now.
    pub span_ns: u64,
    /// Blocks by the part of it that they were allocated in, oldest first; as many
    /// as were recorded, each for itself.
    pub parts: [u64; PARTS],
    /// The same by age, in the buckets of lifetimes.
    pub by_age: [u64; LIFETIME_BUCKETS],
}

impl Default for Births {
    fn default() -> Self {
        Self { span_ns: 0, parts: [0; PARTS], by_age: [0; LIFETIME_BUCKETS] }
    }
}

impl Births {
    /// Of blocks with these times of birth, under trace from `begin_ns` to `now_ns`
    /// (all on one clock).
    pub fn of(births: impl IntoIterator<Item = u64>, begin_ns: u64, now_ns: u64) -> Self {
        let span_ns = now_ns.saturating_sub(begin_ns);
        let mut all = Self { span_ns, ..Self::default() };
        for birth in births {
            let since = birth.saturating_sub(begin_ns);
            let part = u128::from(since) * PARTS as u128 / u128::from(span_ns.max(1));
            all.parts[(part as usize).min(PARTS - 1)] += 1;
            all.by_age[Site::bucket(now_ns.saturating_sub(birth))] += 1;
        }
        all
    }

    /// Adds those of another call site of the same process.
    pub fn add(&mut self, other: &Self) {
        self.span_ns = self.span_ns.max(other.span_ns);
        let parts = self.parts.iter_mut().zip(other.parts);
        for (sum, count) in parts.chain(self.by_age.iter_mut().zip(other.by_age)) {
            *sum = sum.saturating_add(count);
        }
    }

    /// Blocks that are counted.
    pub fn count(&self) -> u64 {
        self.parts.iter().fold(0, |sum, part| sum.saturating_add(*part))
    }

    /// Those parts all of whose blocks are older than `age_ns`.
    pub fn older_than(&self, age_ns: u64) -> &[u64] {
        let whole = u128::from(self.span_ns.saturating_sub(age_ns)) * PARTS as u128
            / u128::from(self.span_ns.max(1));
        &self.parts[..(whole as usize).min(PARTS)]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Check that blocks count in the part that they were born in, and that those
    /// from before the begin, or after now, are not lost.
    #[test]
    fn parts_of_the_time() {
        let births = Births::of([0, 1000, 1999, 2000, 60_999, 70_000], 1000, 61_000);
        assert_eq!(births.span_ns, 60_000);
        assert_eq!((births.parts[0], births.parts[1], births.parts[59]), (3, 1, 2));
        assert_eq!(births.older_than(58_000), [3, 1]);
        assert_eq!(births.older_than(58_001), [3]);
        assert!(births.older_than(60_001).is_empty());
        assert!(Births::default().older_than(0).len() <= PARTS);
    }

    proptest! {
        /// Check that none is lost, and that sums are sums.
        #[test]
        fn none_is_lost(
            first in prop::collection::vec(any::<u64>(), 0..50),
            second in prop::collection::vec(any::<u64>(), 0..50),
            begin in any::<u64>(),
            now in any::<u64>(),
        ) {
            let mut sum = Births::of(first.clone(), begin, now);
            sum.add(&Births::of(second.clone(), begin, now));
            prop_assert_eq!(sum.count(), (first.len() + second.len()) as u64);
            prop_assert_eq!(sum.by_age.iter().sum::<u64>(), sum.count());
            prop_assert_eq!(sum, Births::of(first.into_iter().chain(second), begin, now));
        }
    }
}
