//! A series as a line of bars.

use super::theme::Theme;
use crate::protocol::Point;

/// The least part of the greatest value that the whole height stands for: what
/// varies less is drawn flat, so that noise does not look like growth.
const LEAST_RANGE: f64 = 0.01;

/// The least and the greatest value.
pub fn range(series: &[Point]) -> Option<(u64, u64)> {
    let values = || series.iter().map(|point| point.1);
    Some((values().min()?, values().max()?))
}

/// Draws a series of `(seconds ago, value)` in `width` columns, the newest at
/// the right. The lowest bar is the least value, not nothing. Where nothing was
/// measured, the value before stays.
pub fn sparkline(series: &[Point], width: usize, theme: Theme) -> String {
    let finite = series.iter().filter(|point| point.0.is_finite());
    let Some((least, most)) = range(series) else { return String::new() };
    let oldest = finite.clone().fold(0.0f64, |oldest, point| oldest.max(point.0));
    let newest = finite.clone().fold(oldest, |newest, point| newest.min(point.0));
    if width == 0 {
        return String::new();
    }
    let mut columns: Vec<Option<u64>> = vec![None; width];
    for &(ago, value) in finite {
        let part = if oldest > newest { (oldest - ago) / (oldest - newest) } else { 1.0 };
        let column = ((part * width as f64) as usize).min(width - 1);
        // Of several, the greatest: peaks are not to be lost.
        columns[column] = columns[column].max(Some(value));
    }
    let bars = theme.bars();
    let height = ((most - least) as f64).max(most as f64 * LEAST_RANGE).max(1.0);
    let mut last = None;
    columns
        .into_iter()
        .map(|value| {
            last = value.or(last);
            let Some(value) = last else { return ' ' };
            let part = (value - least) as f64 / height;
            bars[((part * bars.len() as f64) as usize).min(bars.len() - 1)]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const THEME: Theme = Theme { coloured: false, unicode: true };

    /// Check that growth goes up to the right, noise stays flat, and gaps keep
    /// the value before.
    #[test]
    fn shapes() {
        let ramp: Vec<Point> = (0..8).map(|i| (f64::from(7 - i), i as u64 * 100)).collect();
        assert_eq!(sparkline(&ramp, 8, THEME), "▁▂▃▄▅▆▇█");
        let noise: Vec<Point> =
            (0..8).map(|i| (f64::from(7 - i), 1_000_000 + i as u64 % 2)).collect();
        assert_eq!(sparkline(&noise, 8, THEME), "▁▁▁▁▁▁▁▁");
        assert_eq!(sparkline(&[(10.0, 0), (0.0, 10)], 4, THEME), "▁▁▁█");
        assert_eq!(sparkline(&[(5.0, 7)], 3, THEME), "  ▁");
        assert_eq!(sparkline(&[], 3, THEME), "");
    }

    proptest! {
        /// Check that any series fits its columns.
        #[test]
        fn fits(series in prop::collection::vec((any::<f64>(), any::<u64>()), 0..50), width in 0usize..100) {
            let drawn = sparkline(&series, width, THEME).chars().count();
            prop_assert!(drawn == width || drawn == 0);
        }
    }
}
