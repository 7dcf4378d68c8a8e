//! How fast a series grows, and how sure that is.

use serde::{Deserialize, Serialize};

use super::survival::Interval;
use crate::watch::growth::{Judge, Trend};
use crate::watch::history::Sample;

/// Standard deviations of an interval of 95 %.
const DEVIATIONS: f64 = 1.96;

/// How a series grows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Growth {
    /// Bytes a second: the median of the slopes between all pairs of points (Theil
    /// and Sen).
    pub slope: f64,
    /// 95 % certain, were the points independent; those of memory are nearly never,
    /// so it is somewhat too narrow.
    pub interval: Interval,
    /// What the series does.
    pub trend: Trend,
    /// The time that it spans, in seconds.
    pub span: f64,
    /// The share of its peak that it had given back at the end, 0 to 1.
    pub returned: f64,
}

/// As the report has it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Bytes a second ...
    pub bytes_per_second: f64,
    /// ... with 95 % certainty at least ...
    pub low: f64,
    /// ... and at most.
    pub high: f64,
}

impl Growth {
    /// Of a series, oldest point first; `None`: too few points to judge.
    pub fn of(points: &[Sample], judge: &Judge) -> Option<Self> {
        let judgement = judge.span(points, 0.0)?;
        let (slope, interval) = sen(points)?;
        let peak = points.iter().map(|point| point.bytes).max().unwrap_or(0);
        let last = points.last().map_or(0, |point| point.bytes);
        Some(Self {
            slope,
            interval,
            trend: judgement.trend,
            span: judgement.span,
            returned: (peak - last) as f64 / peak.max(1) as f64,
        })
    }

    /// Of two series that are added: of both, the certainty that either has.
    pub fn plus(self, other: Self) -> Self {
        let larger = if other.slope > self.slope { other } else { self };
        Self {
            slope: self.slope + other.slope,
            interval: Interval {
                low: self.interval.low + other.interval.low,
                high: self.interval.high + other.interval.high,
            },
            ..larger
        }
    }
}

/// The median of the slopes between all pairs of points, and Sen's interval: those
/// slopes that lie around it by as many ranks as Kendall's S varies. Ties are not
/// corrected for, which makes it wider.
pub fn sen(points: &[Sample]) -> Option<(f64, Interval)> {
    let mut slopes = Vec::with_capacity(points.len() * points.len().saturating_sub(1) / 2);
    for (index, later) in points.iter().enumerate() {
        for earlier in &points[..index] {
            let seconds = later.time - earlier.time;
            if seconds > 0.0 {
                slopes.push((later.bytes as f64 - earlier.bytes as f64) / seconds);
            }
        }
    }
    slopes.sort_unstable_by(f64::total_cmp);
    let pairs = slopes.len();
    let n = points.len() as f64;
    let spread = DEVIATIONS * (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
    let rank = |rank: f64| slopes.get((rank.max(0.0) as usize).min(pairs.saturating_sub(1)));
    let middle = *slopes.get(pairs / 2)?;
    Some((
        middle,
        Interval {
            low: *rank((pairs as f64 - spread) / 2.0)?,
            high: *rank((pairs as f64 + spread) / 2.0)?,
        },
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const JUDGE: Judge = Judge { least_slope: 0.0, least_growth: 0.0, startup: Duration::ZERO };

    fn series(bytes: impl IntoIterator<Item = u64>) -> Vec<Sample> {
        let numbered = bytes.into_iter().enumerate();
        numbered.map(|(second, bytes)| Sample { time: second as f64, bytes }).collect()
    }

    /// Check that equal steps have no spread, and that nothing has no slope.
    #[test]
    fn equal_steps_have_no_spread() {
        let (slope, interval) = sen(&series((0..40).map(|step| step * 100))).unwrap();
        assert_eq!((slope, interval.low, interval.high), (100.0, 100.0, 100.0));
        assert!(sen(&[]).is_none() && sen(&series([1])).is_none());
    }

    /// Check that noise widens the interval around the truth, and that one outlier
    /// does not move it.
    #[test]
    fn noise_widens() {
        let noise = |step: u64| step * 7919 % 1013;
        let mut noisy = series((0..60).map(|step| step * 100 + noise(step)));
        let (slope, interval) = sen(&noisy).unwrap();
        assert!(interval.low < 100.0 && 100.0 < interval.high, "{interval:?}");
        assert!(interval.high - interval.low > 2.0 && (slope - 100.0).abs() < 20.0);
        noisy[30].bytes = 1 << 40;
        let (again, _) = sen(&noisy).unwrap();
        assert!((again - slope).abs() < 5.0);
    }

    /// Check that a return to the baseline is seen.
    #[test]
    fn returns() {
        let load = series((0..30u64).map(|step| if step < 25 { step * 1000 } else { 600 }));
        let growth = Growth::of(&load, &JUDGE).unwrap();
        assert!((growth.returned - 0.975).abs() < 0.001);
        assert_ne!(growth.trend, Trend::Growing);
    }

    proptest! {
        /// Check that the slope lies in its interval.
        #[test]
        fn slopes_lie_in_their_interval(bytes in prop::collection::vec(0u64..1 << 50, 2..80)) {
            let (slope, interval) = sen(&series(bytes)).unwrap();
            prop_assert!(interval.low <= slope && slope <= interval.high);
        }
    }
}
