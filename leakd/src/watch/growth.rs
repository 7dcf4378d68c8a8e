//! Noise from trend: does a series grow, steadily, and on and on?
//!
//! Slopes are Theil and Sen's (the median of the slopes between all pairs of
//! points), which one point in four may corrupt. Whether there is a trend is
//! asked by Mann and Kendall's test. That test takes its points to be
//! independent, which memory's are not: one step up and then nothing, or a
//! random walk, passes it. So the growth must also be spread over the span,
//! must not die down, must not have been given back in between, and must lead
//! beyond all that was there before.
//!
//! A series is looked at over minutes, hours and days at once: what is a slow
//! ramp in minutes may be the flank of a wave in days.

use std::time::Duration;

use super::history::{History, Sample};

/// The span that the newest points must have, in seconds, to be judged.
const RECENT_SPAN: f64 = 110.0;
/// Points that a span must have.
const POINTS: usize = 10;
/// Parts of a span over which growth must be spread.
const PARTS: usize = 6;
/// Mann-Kendall's Z of a trend: p < 0.0005 were the points independent.
const Z: f64 = 3.3;

/// What a series does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trend {
    /// Too little is known.
    #[default]
    Undetermined,
    /// It grows, but less and less.
    Slowing,
    /// It does not grow.
    Stable,
    /// It goes up and down between bounds.
    Bounded,
    /// It grows steadily.
    Growing,
}

/// What was found out about a series.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Judgement {
    /// What it does.
    pub trend: Trend,
    /// How fast it grows, bytes a second.
    pub slope: f64,
    /// Mann-Kendall's Z.
    pub z: f64,
    /// The span that both are of, in seconds.
    pub span: f64,
}

/// What is growth and what is not.
#[derive(Clone, Copy, Debug)]
pub struct Judge {
    /// Slower growth is none, bytes a second.
    pub least_slope: f64,
    /// Less growth within a span is none, in bytes.
    pub least_growth: f64,
    /// What a process takes in this time from its start is not looked at.
    pub startup: Duration,
}

impl Judge {
    /// Growth of a process's memory: less than 256 KiB is noise of a quiet one.
    pub fn of_process(least_slope: f64, startup: Duration) -> Self {
        Self { least_slope, least_growth: 256.0 * 1024.0, startup }
    }

    /// Judges a series.
    pub fn judge(&self, history: &History) -> Judgement {
        let recent: Vec<Sample> = history.recent().iter().copied().collect();
        let fine = self.span(&recent, RECENT_SPAN);
        let mut judgement = fine.unwrap_or_default();
        if judgement.trend == Trend::Growing {
            let begin = recent.first().map_or(0.0, |first| first.time);
            let now = recent.last().map_or(0, |last| last.bytes);
            // A flank of a wave or of a saw's tooth: it has been as high before.
            if history.most_before(begin).is_some_and(|most| now <= most) {
                judgement.trend = Trend::Bounded;
            }
        }
        for level in 0..History::levels() {
            let points: Vec<Sample> = history
                .complete(level)
                .map(|span| Sample { time: span.least_at, bytes: span.least })
                .collect();
            // What is known of a longer time outweighs what is known of a
            // shorter one, but for growth that has only begun.
            let Some(longer) = self.span(&points, 0.0) else { continue };
            match (judgement.trend, longer.trend) {
                // In the minima; and it goes on in the last quarter.
                (_, Trend::Growing) if has_risen(&points) => judgement = longer,
                // Unless it is steady since the warm-up was over.
                (Trend::Growing, Trend::Slowing | Trend::Bounded) => {
                    let tail = &points[points.len() - POINTS.max(points.len() / 3)..];
                    let steady =
                        self.span(tail, 0.0).is_some_and(|tail| tail.trend == Trend::Growing);
                    if longer.trend == Trend::Bounded || !steady {
                        judgement = longer;
                    }
                }
                (Trend::Undetermined, Trend::Slowing | Trend::Bounded | Trend::Stable) => {
                    judgement = longer;
                }
                _ => {}
            }
        }
        judgement
    }

    /// Judges points of one resolution, oldest first; `None`: they are too few,
    /// or span less than `least_span` seconds.
    pub fn span(&self, points: &[Sample], least_span: f64) -> Option<Judgement> {
        let (first, last) = (points.first()?, points.last()?);
        let span = last.time - first.time;
        if points.len() < POINTS || span < least_span {
            return None;
        }
        let mut judgement = Judgement { trend: Trend::Stable, span, ..Judgement::default() };
        let least = self.least_growth.max(self.least_slope * span);
        // Most processes end here, for next to nothing.
        let lowest = points.iter().map(|point| point.bytes).min().unwrap_or(0);
        let highest = points.iter().map(|point| point.bytes).max().unwrap_or(0);
        if ((highest - lowest) as f64) < least {
            return Some(judgement);
        }
        let (slope, z) = trend(points);
        (judgement.slope, judgement.z) = (slope, z);
        let rise = slope * span;
        let drawdown = drawdown(points) as f64;
        if z < Z || slope < self.least_slope || rise < least {
            let swings = drawdown >= 0.3 * (highest - lowest) as f64;
            judgement.trend = if swings { Trend::Bounded } else { Trend::Stable };
            return Some(judgement);
        }
        judgement.trend = if drawdown >= 0.5 * rise { Trend::Bounded } else { shape(points) };
        if judgement.trend == Trend::Growing && noise(points, slope) * 4.0 > rise {
            judgement.trend = Trend::Undetermined;
        }
        Some(judgement)
    }
}

/// Slope (Theil-Sen) and Z (Mann-Kendall, ties corrected).
fn trend(points: &[Sample]) -> (f64, f64) {
    let mut slopes = Vec::with_capacity(points.len() * (points.len() - 1) / 2);
    let mut s = 0i64;
    for (index, later) in points.iter().enumerate() {
        for earlier in &points[..index] {
            let rise = later.bytes as f64 - earlier.bytes as f64;
            s += i64::from(rise > 0.0) - i64::from(rise < 0.0);
            slopes.push(rise / (later.time - earlier.time));
        }
    }
    let n = points.len() as f64;
    let mut values: Vec<u64> = points.iter().map(|point| point.bytes).collect();
    values.sort_unstable();
    let ties: f64 = values
        .chunk_by(|one, other| one == other)
        .map(|equal| {
            let t = equal.len() as f64;
            t * (t - 1.0) * (2.0 * t + 5.0)
        })
        .sum();
    let variance = (n * (n - 1.0) * (2.0 * n + 5.0) - ties) / 18.0;
    let z = if variance <= 0.0 { 0.0 } else { (s - s.signum()) as f64 / variance.sqrt() };
    (median(&mut slopes), z)
}

/// How the growth is spread over the span.
fn shape(points: &[Sample]) -> Trend {
    let (first, last) = (points[0].time, points[points.len() - 1].time);
    let length = (last - first) / PARTS as f64;
    let mut levels = Vec::with_capacity(PARTS);
    for part in 0..PARTS {
        let begin = first + length * part as f64;
        let end = if part + 1 == PARTS { f64::MAX } else { begin + length };
        let mut values: Vec<f64> = points
            .iter()
            .filter(|point| (begin..end).contains(&point.time))
            .map(|point| point.bytes as f64)
            .collect();
        if !values.is_empty() {
            levels.push(median(&mut values));
        }
    }
    let steps: Vec<f64> = levels.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let rise: f64 = steps.iter().sum();
    let upwards = steps.iter().filter(|step| **step > 0.0).count();
    if rise <= 0.0 || steps.len() < PARTS - 2 || upwards + 1 < steps.len() {
        return Trend::Stable;
    }
    // The growth of the last half against that of the first.
    let half = steps.len() / 2;
    let before: f64 = steps[..half].iter().sum();
    let after: f64 = steps[steps.len() - half..].iter().sum();
    if after < 0.6 * before {
        return Trend::Slowing;
    }
    let largest = steps.iter().copied().fold(0.0, f64::max);
    // A step or two are no slope.
    if largest > 0.6 * rise { Trend::Stable } else { Trend::Growing }
}

/// Whether the last point is above the one three quarters on the way to it.
fn has_risen(points: &[Sample]) -> bool {
    let last = points.last().map(|point| point.bytes);
    last > points.get(points.len() * 3 / 4).map(|point| point.bytes)
}

/// The most that was given back after a peak, in bytes.
fn drawdown(points: &[Sample]) -> u64 {
    let mut peak = 0;
    points.iter().fold(0, |most, point| {
        peak = peak.max(point.bytes);
        most.max(peak - point.bytes)
    })
}

/// The median distance of the points from their line.
fn noise(points: &[Sample], slope: f64) -> f64 {
    let mut offsets: Vec<f64> =
        points.iter().map(|point| point.bytes as f64 - slope * point.time).collect();
    let middle = median(&mut offsets);
    let mut distances: Vec<f64> = offsets.iter().map(|offset| (offset - middle).abs()).collect();
    median(&mut distances)
}

fn median(values: &mut [f64]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

#[cfg(test)]
mod tests;
