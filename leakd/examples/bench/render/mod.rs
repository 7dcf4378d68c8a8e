//! The model as text for a terminal, a page of HTML, and a part of the
//! documentation.

pub mod chart;
pub mod html;
pub mod markdown;
pub mod table;

use crate::model::Figures;
use crate::statistics::Summary;

/// Two digits or more.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size == 0.0 || size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        size if size >= 0.01 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}

/// A factor: "1.27x".
pub fn factor(value: f64) -> String {
    match value {
        _ if value >= 10_000.0 => format!("{value:.0e}x"),
        _ if value >= 10.0 => format!("{value:.0}x"),
        _ => format!("{}x", number(value)),
    }
}

/// Bytes in MiB.
pub fn mebibytes(bytes: f64) -> String {
    number(bytes / f64::from(1 << 20))
}

/// A value, or a dash.
pub fn or_dash<T>(value: Option<T>, text: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), text)
}

/// The range of a summary.
pub fn range(summary: &Summary) -> String {
    format!("{}-{}", number(summary.low), number(summary.high))
}

/// What another tracer is, compared with leakd, by throughput: a word and by how
/// much. Alike is what the rounds do not agree on.
pub fn word(figures: &Figures) -> String {
    match figures.leakd_over {
        None => String::new(),
        Some(over) if over.low > 1.0 => format!("slower {}", factor(over.median)),
        Some(over) if over.high < 1.0 => format!("better {}", factor(1.0 / over.median)),
        Some(_) => "alike".to_owned(),
    }
}
