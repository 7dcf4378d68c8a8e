//! Charts as SVG, drawn by arithmetic: they need no script, and take their colours
//! from the page.

use std::fmt::Write;

use super::html::escape;
use super::{number, word};
use crate::model::{Overhead, is_peer};
use crate::tracer::LEAKD;

const WIDTH: f64 = 700.0;
/// Names of tracers on the left, values on the right.
const LEFT: f64 = 120.0;
const RIGHT: f64 = 170.0;
const ROW: f64 = 24.0;
const TOP: f64 = 26.0;

/// One workload: throughput over that of the untraced, on a logarithmic scale; a
/// dot for the median, a line from the lowest to the highest round.
pub fn throughput(one: &Overhead) -> String {
    let values = one.rows.iter().filter_map(|row| row.figures.as_ref());
    let least = values.map(|figures| figures.throughput.low).fold(1.0, f64::min).max(1e-6);
    // Whole powers of ten.
    let decades = (-least.log10()).ceil().max(1.0);
    let at = |value: f64| {
        let share = 1.0 + value.clamp(least / 10.0, 2.0).log10() / decades;
        LEFT + share.clamp(0.0, 1.04) * (WIDTH - LEFT - RIGHT)
    };
    let height = TOP + ROW * one.rows.len() as f64 + 8.0;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}: throughput over \
         that of the untraced\">",
        escape(&one.title())
    );
    for decade in 0..=decades as i32 {
        let value = 10f64.powi(-decade);
        let x = at(value);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{height}\"/>\
             <text class=\"axis\" x=\"{x:.1}\" y=\"16\" text-anchor=\"middle\">{}</text>",
            if decade == 0 {
                "untraced".to_owned()
            } else {
                format!("1/{}", 10i64.pow(decade as u32))
            }
        );
    }
    for (row, place) in one.rows.iter().zip(0i32..) {
        let y = TOP + ROW * (f64::from(place) + 0.5);
        let class = match &*row.tracer {
            LEAKD => "own",
            name if is_peer(name) => "peer",
            _ => "other",
        };
        let _ = write!(
            svg,
            "<text class=\"name {class}\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 10.0,
            y + 4.0,
            escape(&row.tracer)
        );
        let Some(figures) = &row.figures else {
            let why = row.missing.as_deref().unwrap_or("not measured");
            let why: String = why.chars().take(70).collect();
            let _ = write!(
                svg,
                "<text class=\"axis\" x=\"{LEFT}\" y=\"{:.1}\">{}</text>",
                y + 4.0,
                escape(&why)
            );
            continue;
        };
        let summary = &figures.throughput;
        let mut value = number(summary.median);
        if is_peer(&row.tracer) {
            value = format!("{value}  {}", word(figures));
        }
        let _ = write!(
            svg,
            "<line class=\"range {class}\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <circle class=\"{class}\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"5\"/>\
             <text class=\"value\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            at(summary.low),
            at(summary.high),
            at(summary.median),
            WIDTH - RIGHT + 32.0,
            y + 4.0,
            value
        );
    }
    svg + "</svg>"
}
