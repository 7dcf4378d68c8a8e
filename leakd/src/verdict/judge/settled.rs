//! From which age on blocks are not freed any more.

use leakd_common::site::{LIFETIME_BUCKETS, Site};

use super::pace::groups;
use crate::report::rank::bucket_bound;
use crate::verdict::births::{Births, PARTS};
use crate::verdict::survival::Curve;

/// Of blocks that have reached that age, so many may be freed later: a few always are,
/// when a connection is closed at last or a table is emptied by hand.
const FREED_LATER: f64 = 0.1;
/// That age is at most this share of the time under trace: what was allocated in the
/// rest has been watched beyond it.
const LATEST: f64 = 0.6;
/// With so many freed at whatever age, nothing was ever freed ...
const NEVER: f64 = 0.02;
/// ... unless so many of these were older than half of the time: then it is their time
/// to go, and the others' will come.
const OF_AGE: f64 = 0.5;
/// From that age on, blocks are freed so much less often than before.
const RARER: f64 = 0.5;
/// Events that may have been due when none was seen, with 95 % certainty.
const RULE_OF_THREE: f64 = 3.0;

/// Blocks that have outlived the others.
#[derive(Clone, Copy, Debug)]
pub struct Settled<'a> {
    /// They are older than this.
    pub age_ns: u64,
    /// How many of them were allocated in each part of the time until then.
    pub survivors: &'a [u64],
    /// How many they are, as recorded.
    pub kept: f64,
    /// Blocks that were freed after they had reached that age, as recorded.
    pub freed: f64,
    span_ns: u64,
}

impl<'a> Settled<'a> {
    /// Of a site's blocks; `None`: they are freed at every age.
    pub fn of(site: &Site, births: &'a Births, weight: f64) -> Option<Self> {
        let weight = weight.max(1.0);
        let curve = Curve::of(site, &births.by_age, weight);
        let end = curve.steps.last()?.share;
        let latest = births.span_ns as f64 * LATEST;
        let ages = (0..LIFETIME_BUCKETS).filter_map(bucket_bound);
        // What is younger than a part of the time cannot be told apart.
        let ages = ages.filter(|age| *age >= births.span_ns / PARTS as u64);
        for age_ns in ages.take_while(|age| *age as f64 <= latest) {
            let survivors = births.older_than(age_ns);
            let kept = survivors.iter().sum::<u64>() as f64;
            if kept == 0.0 {
                return None;
            }
            let freed = Self::freed_after(site, age_ns) as f64 / weight;
            let reached = curve.at(age_ns).map_or(1.0, |step| step.share);
            let stays = end >= (1.0 - FREED_LATER) * reached;
            let few = freed <= FREED_LATER * (kept + freed);
            if stays && few && Self::is_rarer(site, births, weight, age_ns, kept) {
                return Some(Self { age_ns, survivors, kept, freed, span_ns: births.span_ns });
            }
        }
        None
    }

    /// Blocks that were freed at that age or later. `age_ns` is rounded down to the
    /// bound of a bucket.
    pub fn freed_after(site: &Site, age_ns: u64) -> u64 {
        site.lifetimes[Site::bucket(age_ns)..]
            .iter()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Whether blocks of that age are freed less often than younger ones, for sure.
    /// Where that were not so, what is left of blocks that live for ten minutes on
    /// average would look like a leak after two.
    fn is_rarer(site: &Site, births: &Births, weight: f64, age_ns: u64, kept: f64) -> bool {
        let freed: u64 = site.lifetimes.iter().fold(0, |sum, count| sum.saturating_add(*count));
        let of_age = Self::freed_after(site, births.span_ns / 2) as f64;
        if freed as f64 / weight <= NEVER * kept && of_age <= OF_AGE * freed as f64 {
            return true;
        }
        // How often they are freed: ends for each second that all of them lived.
        let scale = site.outstanding_blocks() as f64 / weight / births.count().max(1) as f64;
        let (mut before, mut after) = ((0.0, 0.0), (0.0, 0.0));
        for bucket in 0..LIFETIME_BUCKETS {
            let ended = site.lifetimes[bucket] as f64 / weight;
            let there = ended + births.by_age[bucket] as f64 * scale;
            // The middle of the bucket, or what was seen of it.
            let upper = bucket_bound(bucket).unwrap_or(u64::MAX).min(births.span_ns) as f64;
            let lower = bucket.checked_sub(1).and_then(bucket_bound).unwrap_or(0) as f64;
            let lived = (lower + upper.max(lower)) / 2.0;
            let age = age_ns as f64;
            before.1 += there * lived.min(age);
            after.1 += there * (lived - age).max(0.0);
            match lived < age {
                true => before.0 += ended,
                false => after.0 += ended,
            }
        }
        let most = (after.0 + RULE_OF_THREE.max(2.0 * f64::sqrt(after.0))) / after.1.max(1.0);
        most < RARER * before.0 / before.1.max(1.0)
    }

    /// Blocks a second that come to stay.
    pub fn per_second(&self, weight: f64) -> f64 {
        let seconds = self.span_ns as f64 / 1e9 * self.survivors.len() as f64 / PARTS as f64;
        self.kept * weight.max(1.0) / seconds.max(1e-3)
    }

    /// Whether there are some in most of the time, however few.
    pub fn is_spread(&self) -> bool {
        groups(self.survivors).iter().filter(|group| **group > 0).count() >= 3
    }
}
