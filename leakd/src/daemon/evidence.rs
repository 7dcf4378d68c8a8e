//! What speaks for a leak: call sites that hold more and more.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use leakd_common::site::Site;

use crate::watch::growth::{Judge, Trend};
use crate::watch::history::Sample;

/// Call sites whose totals are followed: those that hold most.
const FOLLOWED: usize = 128;
/// Totals that are kept of each.
const POINTS: usize = 48;
/// Sites that are told.
pub(super) const TOLD: usize = 10;
/// Growth of one site that counts, in bytes.
const LEAST_GROWTH: f64 = 16.0 * 1024.0;
/// A call site that grows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grower {
    /// Its key.
    pub site: u64,
    /// Its totals.
    pub totals: Site,
    /// Its growth, bytes a second.
    pub slope: f64,
}

/// The totals of a target's call sites over time. Bounded.
#[derive(Clone, Debug, Default)]
pub struct SiteHistories {
    sites: HashMap<u64, VecDeque<Sample>>,
    begin: Option<f64>,
    now: f64,
}

impl SiteHistories {
    /// Adds the totals at `now` (seconds).
    pub fn push(&mut self, now: f64, totals: &HashMap<u64, Site>) {
        self.begin.get_or_insert(now);
        self.now = now;
        self.follow(totals);
        for (key, points) in &mut self.sites {
            let bytes = totals.get(key).map_or(0, Site::outstanding_bytes);
            if points.len() == POINTS {
                points.pop_front();
            }
            points.push_back(Sample { time: now, bytes });
        }
    }

    /// Makes room for those that hold most.
    fn follow(&mut self, totals: &HashMap<u64, Site>) {
        let mut most: Vec<(u64, u64)> = totals
            .iter()
            .map(|(key, site)| (site.outstanding_bytes(), *key))
            .filter(|(bytes, _)| *bytes > 0)
            .collect();
        if most.len() > FOLLOWED {
            most.select_nth_unstable_by(FOLLOWED, |one, other| other.cmp(one));
            most.truncate(FOLLOWED);
        }
        for (_, key) in &most {
            self.sites.entry(*key).or_default();
        }
        if self.sites.len() > 2 * FOLLOWED {
            let keep: std::collections::HashSet<u64> = most.iter().map(|(_, key)| *key).collect();
            self.sites.retain(|key, _| keep.contains(key));
        }
    }

    /// How long sites have been followed.
    pub fn span(&self) -> Duration {
        Duration::from_secs_f64((self.now - self.begin.unwrap_or(self.now)).max(0.0))
    }

    /// The sites that grow, most growth first.
    pub fn growers(&self, totals: &HashMap<u64, Site>, least_slope: f64) -> Vec<Grower> {
        let judge = Judge {
            // A leak may be spread over some sites.
            least_slope: least_slope / 8.0,
            least_growth: LEAST_GROWTH,
            startup: Duration::ZERO,
        };
        let mut growers: Vec<Grower> = self
            .sites
            .iter()
            .filter_map(|(key, points)| {
                let totals = *totals.get(key)?;
                let points: Vec<Sample> = points.iter().copied().collect();
                let judgement = judge.span(&points, 0.0)?;
                let grows = judgement.trend == Trend::Growing;
                grows.then_some(Grower { site: *key, totals, slope: judgement.slope })
            })
            .collect();
        growers.sort_by(|one, other| other.slope.total_cmp(&one.slope));
        growers.truncate(TOLD);
        growers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(allocated: u64, freed: u64) -> Site {
        Site {
            allocated_blocks: allocated,
            allocated_bytes: allocated * 1024,
            freed_blocks: freed,
            freed_bytes: freed * 1024,
            ..Site::EMPTY
        }
    }

    /// Check that of a leak, a busy pool, a cache that is full and a step, only
    /// the leak is told.
    #[test]
    fn leak_among_others() {
        let mut histories = SiteHistories::default();
        let mut totals = HashMap::new();
        for second in (0..120u64).step_by(5) {
            totals = HashMap::from([
                (1, site(second * 20, 0)),
                (2, site(second * 1000 + 500 + second % 3, second * 1000)),
                (3, site(4000, 0)),
                (4, site(if second < 60 { 10 } else { 5000 }, 0)),
            ]);
            histories.push(second as f64, &totals);
        }
        let growers = histories.growers(&totals, 1000.0);
        assert_eq!(growers.iter().map(|grower| grower.site).collect::<Vec<_>>(), [1]);
        assert!((growers[0].slope / (20.0 * 1024.0) - 1.0).abs() < 0.01);
        assert_eq!(histories.span(), Duration::from_secs(115));
    }

    /// Check that however many sites there are, few are followed.
    #[test]
    fn bounded() {
        let mut histories = SiteHistories::default();
        for round in 0..200u64 {
            let totals: HashMap<u64, Site> =
                (0..1000).map(|key| (key * 1000 + round, site(key + 1, 0))).collect();
            histories.push(round as f64, &totals);
            assert!(histories.sites.len() <= 2 * FOLLOWED);
        }
        assert!(histories.sites.values().all(|points| points.len() <= POINTS));
    }
}
