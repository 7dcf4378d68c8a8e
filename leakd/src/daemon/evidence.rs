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
const TOLD: usize = 10;
/// Growth of one site that counts, in bytes.
const LEAST_GROWTH: f64 = 16.0 * 1024.0;
/// In windows: the least share of blocks that must have outlived theirs.
const SURVIVING: f64 = 0.9;
/// In windows: the least number of them that must have told the same.
const WINDOWS: u32 = 5;

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

#[derive(Clone, Debug, Default)]
struct Followed {
    points: VecDeque<Sample>,
    windows: Windowed,
}

/// What a site did in windows, together.
#[derive(Clone, Copy, Debug, Default)]
struct Windowed {
    count: u32,
    allocated: u64,
    left_bytes: u64,
    left_blocks: u64,
}

/// The totals of a target's call sites over time. Bounded.
#[derive(Clone, Debug, Default)]
pub struct SiteHistories {
    sites: HashMap<u64, Followed>,
    begin: Option<f64>,
    now: f64,
    /// Seconds that windows were open.
    open: f64,
}

impl SiteHistories {
    /// Adds the totals at `now` (seconds).
    pub fn push(&mut self, now: f64, totals: &HashMap<u64, Site>) {
        self.begin.get_or_insert(now);
        self.now = now;
        self.follow(totals);
        for (key, followed) in &mut self.sites {
            let bytes = totals.get(key).map_or(0, Site::outstanding_bytes);
            if followed.points.len() == POINTS {
                followed.points.pop_front();
            }
            followed.points.push_back(Sample { time: now, bytes });
        }
    }

    /// Adds the totals of a window that was open for `open` seconds.
    pub fn push_window(&mut self, now: f64, open: f64, totals: &HashMap<u64, Site>) {
        self.begin.get_or_insert(now - open);
        self.now = now;
        self.open += open;
        self.follow(totals);
        for (key, followed) in &mut self.sites {
            // Tables began empty: no line leads over the gap.
            followed.points.clear();
            let Some(site) = totals.get(key) else { continue };
            let windows = &mut followed.windows;
            windows.count += 1;
            windows.allocated += site.allocated_blocks;
            windows.left_bytes += site.outstanding_bytes();
            windows.left_blocks += site.outstanding_blocks();
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
            .filter_map(|(key, followed)| {
                let totals = *totals.get(key)?;
                let slope = match followed.windows {
                    Windowed { count: 0, .. } => {
                        let points: Vec<Sample> = followed.points.iter().copied().collect();
                        let judgement = judge.span(&points, 0.0)?;
                        (judgement.trend == Trend::Growing).then_some(judgement.slope)?
                    }
                    windows => windows.slope(self.open, judge.least_slope)?,
                };
                Some(Grower { site: *key, totals, slope })
            })
            .collect();
        growers.sort_by(|one, other| other.slope.total_cmp(&one.slope));
        growers.truncate(TOLD);
        growers
    }
}

impl Windowed {
    /// Bytes a second that outlived their windows, if nearly all did.
    fn slope(&self, open: f64, least: f64) -> Option<f64> {
        let surviving = self.left_blocks as f64 / self.allocated.max(1) as f64;
        let slope = self.left_bytes as f64 / open.max(1e-3);
        let counts = self.count >= WINDOWS && surviving >= SURVIVING && slope >= least;
        counts.then_some(slope)
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

    /// Check that in windows, a site is told of which nearly nothing was freed
    /// again and again, and not one whose blocks are in flight.
    #[test]
    fn windows_tell() {
        let mut histories = SiteHistories::default();
        let totals = HashMap::from([(1, site(100, 1)), (2, site(10_000, 9_000))]);
        for window in 0..4 {
            histories.push_window(f64::from(window) * 20.0, 1.0, &totals);
        }
        assert!(histories.growers(&totals, 1000.0).is_empty(), "too few");
        histories.push_window(100.0, 1.0, &totals);
        let growers = histories.growers(&totals, 1000.0);
        assert_eq!(growers.len(), 1);
        assert_eq!(growers[0].site, 1);
        assert!((growers[0].slope - 99.0 * 1024.0).abs() < 1.0);
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
        assert!(histories.sites.values().all(|followed| followed.points.len() <= POINTS));
    }
}
