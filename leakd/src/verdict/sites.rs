//! What all call sites of a process hold over time, and the process itself.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use leakd_common::site::Site;

use super::growth::Growth;
use crate::watch::growth::{Judge, Trend};
use crate::watch::history::Sample;

/// Call sites whose totals are followed: those that hold most.
const FOLLOWED: usize = 128;
/// Points that are kept of each series.
const POINTS: usize = 48;
/// Growers that are told.
pub const TOLD: usize = 10;
/// Growth of one site that counts, in bytes.
const LEAST_GROWTH: f64 = 16.0 * 1024.0;

/// Which points stay when there is no room for more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// The newest: for traces that go on and on.
    #[default]
    Newest,
    /// Every second one, again and again: the whole time, ever coarser.
    Whole,
}

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

/// A series of [`POINTS`] points at most.
#[derive(Clone, Debug, Default)]
struct Series {
    points: Vec<Sample>,
    /// Of so many values, one is kept ...
    stride: u32,
    /// ... and so many were not, since.
    skipped: u32,
}

impl Series {
    fn push(&mut self, point: Sample, keep: Keep) {
        if self.skipped + 1 < self.stride {
            self.skipped += 1;
            return;
        }
        self.skipped = 0;
        if self.points.len() == POINTS {
            match keep {
                Keep::Newest => drop(self.points.remove(0)),
                Keep::Whole => {
                    let mut number = 0u32;
                    self.points.retain(|_| {
                        number += 1;
                        number % 2 == 1
                    });
                    self.stride = self.stride.max(1) * 2;
                }
            }
        }
        self.points.push(point);
    }
}

/// The totals of a target's call sites over time, and its memory. Bounded.
#[derive(Clone, Debug, Default)]
pub struct SiteHistories {
    keep: Keep,
    sites: HashMap<u64, Series>,
    memory: Series,
    unknown_frees: Series,
    begin: Option<f64>,
    now: f64,
}

impl SiteHistories {
    /// Without a point.
    pub fn new(keep: Keep) -> Self {
        Self { keep, ..Self::default() }
    }

    /// Adds the totals at `now` (seconds).
    pub fn push(&mut self, now: f64, totals: &HashMap<u64, Site>) {
        self.begin.get_or_insert(now);
        self.now = now;
        self.follow(totals);
        for (key, series) in &mut self.sites {
            let bytes = totals.get(key).map_or(0, Site::outstanding_bytes);
            series.push(Sample { time: now, bytes }, self.keep);
        }
    }

    /// Adds what is known of the process at `now`: its anonymous memory in bytes,
    /// and how many blocks it has freed that the ledger did not know.
    pub fn push_process(&mut self, now: f64, memory: Option<u64>, unknown_frees: u64) {
        if let Some(bytes) = memory {
            self.memory.push(Sample { time: now, bytes }, self.keep);
        }
        self.unknown_frees.push(Sample { time: now, bytes: unknown_frees }, self.keep);
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
            let keep: HashSet<u64> = most.iter().map(|(_, key)| *key).collect();
            self.sites.retain(|key, _| keep.contains(key));
        }
    }

    /// How long sites have been followed.
    pub fn span(&self) -> Duration {
        Duration::from_secs_f64((self.now - self.begin.unwrap_or(self.now)).max(0.0))
    }

    /// How a site's outstanding bytes grow; `None`: it is not followed, or not for
    /// long enough.
    pub fn site(&self, key: u64) -> Option<Growth> {
        Growth::of(&self.sites.get(&key)?.points, &site_judge(0.0))
    }

    /// How the process's anonymous memory grows.
    pub fn memory(&self) -> Option<Growth> {
        Growth::of(&self.memory.points, &Judge::of_process(0.0, Duration::ZERO))
    }

    /// Blocks from before the trace that were freed a second, in the newest half of
    /// the time: those that were in flight at its begin are gone by then.
    pub fn replaced_per_second(&self) -> Option<f64> {
        let points = &self.unknown_frees.points;
        let (middle, last) = (points.get(points.len() / 2)?, points.last()?);
        let seconds = last.time - middle.time;
        (seconds > 0.0).then(|| last.bytes.saturating_sub(middle.bytes) as f64 / seconds)
    }

    /// The sites that grow, most growth first.
    pub fn growers(&self, totals: &HashMap<u64, Site>, least_slope: f64) -> Vec<Grower> {
        // A leak may be spread over some sites.
        let judge = site_judge(least_slope / 8.0);
        let mut growers: Vec<Grower> = self
            .sites
            .iter()
            .filter_map(|(key, series)| {
                let totals = *totals.get(key)?;
                let judgement = judge.span(&series.points, 0.0)?;
                let grows = judgement.trend == Trend::Growing;
                grows.then_some(Grower { site: *key, totals, slope: judgement.slope })
            })
            .collect();
        growers.sort_by(|one, other| other.slope.total_cmp(&one.slope));
        growers.truncate(TOLD);
        growers
    }
}

fn site_judge(least_slope: f64) -> Judge {
    Judge { least_slope, least_growth: LEAST_GROWTH, startup: Duration::ZERO }
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
        let growth = histories.site(1).expect("it is followed");
        assert!(growth.interval.low > 20_000.0 && growth.interval.high < 21_000.0);
        assert_eq!(histories.site(5), None);
    }

    /// Check that however many sites there are, few are followed.
    #[test]
    fn bounded() {
        for keep in [Keep::Newest, Keep::Whole] {
            let mut histories = SiteHistories::new(keep);
            for round in 0..200u64 {
                let totals: HashMap<u64, Site> =
                    (0..1000).map(|key| (key * 1000 + round, site(key + 1, 0))).collect();
                histories.push(round as f64, &totals);
                assert!(histories.sites.len() <= 2 * FOLLOWED);
            }
            assert!(histories.sites.values().all(|series| series.points.len() <= POINTS));
        }
    }

    /// Check that the newest points, or the whole time, are kept.
    #[test]
    fn what_is_kept() {
        let of = |keep| {
            let mut histories = SiteHistories::new(keep);
            for second in 0..1000u64 {
                histories.push_process(second as f64, Some(second << 20), second * 3);
            }
            histories
        };
        let newest = of(Keep::Newest);
        assert_eq!(newest.memory.points[0].time, 1000.0 - POINTS as f64);
        let whole = of(Keep::Whole);
        assert_eq!(whole.memory.points[0].time, 0.0);
        let last = whole.memory.points.last().unwrap().time;
        assert!(last > 960.0, "{last}");
        for histories in [newest, whole] {
            assert_eq!(histories.replaced_per_second(), Some(3.0));
            let growth = histories.memory().expect("enough points");
            assert_eq!((growth.slope, growth.trend), (f64::from(1 << 20), Trend::Growing));
        }
        assert_eq!(SiteHistories::default().replaced_per_second(), None);
    }
}
