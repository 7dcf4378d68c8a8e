//! How long blocks of a call site live: the Kaplan-Meier estimate.
//!
//! Freed blocks tell how long they lived; outstanding ones, that they live longer
//! than their age: they are censored. The estimate uses both. It is as coarse as the
//! lifetime histogram: a step for each power of two.

use leakd_common::site::{LIFETIME_BUCKETS, Site};

use crate::report::rank::bucket_bound;

/// A step of the curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// From this age on (ns) ...
    pub age_ns: u64,
    /// ... so much of the blocks is outstanding still, 0 to 1.
    pub share: f64,
    /// Its variance, by Greenwood's formula.
    pub variance: f64,
    /// Blocks that were as old as that, whether freed later or not.
    pub at_risk: f64,
}

/// A survival curve.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// Ages upward, shares downward.
    pub steps: Vec<Step>,
}

/// An interval of 95 %.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// Standard deviations of an interval of 95 %.
const DEVIATIONS: f64 = 1.96;

impl Curve {
    /// The curve of a call site. `by_age`: its outstanding blocks by age, each of which
    /// stands for the same number of them; `weight`: how many blocks one that was
    /// recorded stands for on average (1 unless sampled).
    pub fn of(site: &Site, by_age: &[u64; LIFETIME_BUCKETS], weight: f64) -> Self {
        // What is known rests on as many blocks as were recorded.
        let weight = weight.max(1.0);
        let mut freed = [0.0; LIFETIME_BUCKETS];
        for (to, from) in freed.iter_mut().zip(site.lifetimes) {
            *to = from as f64 / weight;
        }
        let known = by_age.iter().fold(0, |sum: u64, blocks| sum.saturating_add(*blocks));
        let each = site.outstanding_blocks() as f64 / weight / known.max(1) as f64;
        let censored = by_age.map(|blocks| blocks as f64 * each);
        let mut at_risk: f64 = freed.iter().chain(&censored).sum();
        let (mut share, mut greenwood) = (1.0, 0.0);
        let mut curve = Self::default();
        for bucket in 0..LIFETIME_BUCKETS {
            if at_risk <= 0.0 {
                break;
            }
            // Of those that are as old as this bucket, half were never to see its
            // end (the actuarial estimate).
            let exposed = at_risk - censored[bucket] / 2.0;
            if freed[bucket] > 0.0 && exposed > 0.0 {
                let dying = (freed[bucket] / exposed).min(1.0);
                share *= 1.0 - dying;
                if dying < 1.0 {
                    greenwood += dying / (exposed * (1.0 - dying));
                }
            }
            at_risk = (at_risk - freed[bucket] - censored[bucket]).max(0.0);
            curve.steps.push(Step {
                age_ns: bucket_bound(bucket).unwrap_or(u64::MAX),
                share,
                variance: share * share * greenwood,
                at_risk,
            });
        }
        curve
    }

    /// The share of blocks that live longer than `age_ns`; `None`: none of them has
    /// been watched for that long.
    pub fn at(&self, age_ns: u64) -> Option<Step> {
        self.steps.iter().take_while(|step| step.age_ns <= age_ns).last().copied()
    }

    /// Where the curve ends: what is outstanding of the oldest.
    pub fn end(&self) -> Option<Step> {
        self.steps.iter().rev().find(|step| step.at_risk > 0.0).copied()
    }

    /// The age from which on no block was freed any more.
    pub fn settled_ns(&self) -> u64 {
        let last = self.steps.last().map_or(1.0, |step| step.share);
        self.steps.iter().find(|step| step.share <= last).map_or(0, |step| step.age_ns)
    }
}

impl Step {
    /// How sure its share is. With nobody freed among `n`, up to 3 in `n` may be
    /// (the rule of three).
    pub fn interval(&self) -> Interval {
        let spread = DEVIATIONS * self.variance.sqrt();
        let three = if self.at_risk > 0.0 { 3.0 / self.at_risk } else { 1.0 };
        Interval {
            low: (self.share - spread - if self.variance > 0.0 { 0.0 } else { three }).max(0.0),
            high: (self.share + spread).min(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn ages(ages_ns: &[u64]) -> [u64; LIFETIME_BUCKETS] {
        let mut by_age = [0; LIFETIME_BUCKETS];
        ages_ns.iter().for_each(|age| by_age[Site::bucket(*age)] += 1);
        by_age
    }

    fn site(lifetimes: &[(u64, u64)], outstanding: u64) -> Site {
        let mut site = Site::EMPTY;
        for (lifetime, blocks) in lifetimes {
            site.lifetimes[Site::bucket(*lifetime)] += blocks;
            site.freed_blocks += blocks;
        }
        site.allocated_blocks = site.freed_blocks + outstanding;
        site
    }

    /// Check the textbook's cases: none freed, all freed, and of two generations
    /// that died the rest stays.
    #[test]
    fn known_curves() {
        let none = Curve::of(&site(&[], 100), &ages(&[60 * SECOND; 10]), 1.0);
        assert_eq!(none.end().map(|step| step.share), Some(1.0));
        assert_eq!(none.settled_ns(), none.steps[0].age_ns);
        let all = Curve::of(&site(&[(SECOND, 100)], 0), &ages(&[]), 1.0);
        assert_eq!(all.steps.last().map(|step| step.share), Some(0.0));
        assert_eq!(all.at(SECOND / 4).map(|step| step.share), Some(1.0));
        let half = Curve::of(&site(&[(SECOND / 100, 50)], 50), &ages(&[100 * SECOND; 5]), 1.0);
        let end = half.end().unwrap();
        assert!((end.share - 0.5).abs() < 1e-9 && end.at_risk > 49.0, "{end:?}");
        // Binomial: 1.96 * sqrt(0.25 / 100).
        assert!((end.interval().low - 0.402).abs() < 0.001, "{:?}", end.interval());
        assert!(half.settled_ns() < SECOND / 25);
        assert_eq!(Curve::of(&site(&[], 0), &ages(&[]), 1.0), Curve::default());
        // A hundredth of the blocks recorded, and the interval is wider.
        let sampled = Curve::of(&site(&[(SECOND / 100, 50)], 50), &ages(&[100 * SECOND; 5]), 10.0);
        assert!(sampled.end().unwrap().interval().low < 0.2);
    }

    /// Check that young blocks, which cannot have died late yet, do not lift the
    /// curve: steady traffic of blocks that live 10 s is no leak.
    #[test]
    fn young_ones_do_not_count_as_survivors() {
        let ages: Vec<u64> = (0..100).map(|one| one * SECOND / 10).collect();
        let traffic = Curve::of(&site(&[(10 * SECOND, 900)], 100), &self::ages(&ages), 1.0);
        let end = traffic.steps.last().unwrap();
        assert!(end.share < 0.06, "{traffic:?}");
    }

    proptest! {
        /// Check that every curve falls, from 1 at most to 0 at least, and that its
        /// intervals hold it.
        #[test]
        fn curves_fall(
            lifetimes in prop::collection::vec((0u64..1 << 45, 0u64..1_000_000), 0..10),
            ages in prop::collection::vec(0u64..1 << 45, 0..100),
            outstanding in 0u64..1_000_000,
            weight in 0.1f64..100.0,
        ) {
            let curve = Curve::of(&site(&lifetimes, outstanding), &self::ages(&ages), weight);
            let mut before = 1.0;
            for step in &curve.steps {
                prop_assert!((0.0..=before).contains(&step.share), "{:?}", curve);
                prop_assert!(step.variance >= 0.0 && step.at_risk >= 0.0);
                let interval = step.interval();
                prop_assert!(interval.low <= step.share + 1e-9);
                prop_assert!(interval.high >= step.share - 1e-9);
                before = step.share;
            }
            prop_assert!(curve.end().is_none_or(|end| end.at_risk > 0.0));
        }
    }
}
