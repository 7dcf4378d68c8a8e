//! Order and filter: which entries are shown, as indices. Nothing is formatted
//! here, since there may be thousands.

use std::cmp::Ordering;

use crate::protocol::{ProcessView, Sort, Stage, Verdict};
use crate::report::model::Site;

/// The orders of processes, by the number of their key.
pub const PROCESS_ORDERS: [(Sort, &str); 5] = [
    (Sort::Growth, "growth"),
    (Sort::Outstanding, "held"),
    (Sort::Cost, "cost"),
    (Sort::Memory, "memory"),
    (Sort::Pid, "pid"),
];

/// The orders of call sites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SiteOrder {
    /// The most suspicious first, as in the report.
    #[default]
    Rank,
    /// Most bytes held.
    Held,
    /// Most blocks held.
    Blocks,
    /// Fastest growing.
    Growth,
    /// Oldest block.
    Age,
}

/// These, by the number of their key.
pub const SITE_ORDERS: [(SiteOrder, &str); 5] = [
    (SiteOrder::Rank, "suspicion"),
    (SiteOrder::Held, "held"),
    (SiteOrder::Blocks, "blocks"),
    (SiteOrder::Growth, "growth"),
    (SiteOrder::Age, "age"),
];

/// A filter: text that must be there, whatever its case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter(String);

impl Filter {
    /// The longest, in characters.
    pub const LIMIT: usize = 64;

    /// The text.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Adds a character, if there is room.
    pub fn push(&mut self, character: char) {
        if self.0.chars().count() < Self::LIMIT {
            self.0.push(character);
        }
    }

    /// Takes the last character away.
    pub fn pop(&mut self) {
        self.0.pop();
    }

    /// Forgets the text.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether a text has it. Letters that are not ASCII must be the same.
    pub fn fits(&self, text: &str) -> bool {
        let (text, wanted) = (text.as_bytes(), self.0.as_bytes());
        let Some(first) = wanted.first() else { return true };
        let (lower, upper) = (first.to_ascii_lowercase(), first.to_ascii_uppercase());
        // Ten thousand stacks are looked through upon each key.
        memchr::memchr2_iter(lower, upper, text).any(|at| {
            text.get(at..at + wanted.len()).is_some_and(|found| found.eq_ignore_ascii_case(wanted))
        })
    }

    fn fits_process(&self, process: &ProcessView) -> bool {
        self.0.is_empty()
            || self.fits(&process.comm)
            || self.fits(&process.exe)
            || self.fits(&process.pid.to_string())
            || process.unit.as_deref().is_some_and(|unit| self.fits(unit))
            || process.container.as_deref().is_some_and(|container| self.fits(container))
    }

    fn fits_site(&self, site: &Site) -> bool {
        self.0.is_empty()
            || site.stack.iter().any(|frame| {
                let parts = [&frame.function, &frame.file, &frame.module];
                parts.into_iter().flatten().any(|part| self.fits(part))
            })
    }
}

/// Whether a process is of interest without being asked for.
pub fn interesting(process: &ProcessView) -> bool {
    let idle = matches!(process.stage, Stage::Watched | Stage::Excluded);
    !idle || process.trace.is_some() || matches!(process.verdict, Verdict::Growing | Verdict::Leak)
}

/// The processes to show, in order.
pub fn processes(
    all: &[ProcessView],
    every: bool,
    filter: &Filter,
    sort: Sort,
    reverse: bool,
) -> Vec<u32> {
    let fits =
        |process: &ProcessView| (every || interesting(process)) && filter.fits_process(process);
    let cost = |process: &ProcessView| process.cost_percent().unwrap_or(-1.0);
    let compare = |one: &ProcessView, other: &ProcessView| match sort {
        Sort::Growth => growth(other).total_cmp(&growth(one)),
        Sort::Outstanding => other.outstanding_bytes().cmp(&one.outstanding_bytes()),
        Sort::Cost => cost(other).total_cmp(&cost(one)),
        Sort::Memory => other.taken_bytes().cmp(&one.taken_bytes()),
        Sort::Pid => Ordering::Equal,
    };
    let ties = |one: &ProcessView, other: &ProcessView| {
        (one.pid, one.start_time).cmp(&(other.pid, other.start_time))
    };
    sorted(all, fits, compare, ties, reverse)
}

/// What grows for sure comes before what is under trace, and that before what
/// may be noise.
fn growth(process: &ProcessView) -> f64 {
    let sure = matches!(process.verdict, Verdict::Growing | Verdict::Leak) && process.running;
    let traced = process.trace.as_ref().is_some_and(|trace| trace.active);
    let slope = process.growth.bytes_per_second;
    match slope {
        _ if !slope.is_finite() => f64::NEG_INFINITY,
        _ if sure => 1e15 + slope.max(0.0) * 1e12,
        _ if traced => 1e14 + slope.max(0.0),
        _ => slope,
    }
}

/// The call sites to show, in order.
pub fn sites(all: &[Site], filter: &Filter, order: SiteOrder, reverse: bool) -> Vec<u32> {
    let compare = |one: &Site, other: &Site| match order {
        SiteOrder::Rank => other.rank_bytes.cmp(&one.rank_bytes),
        SiteOrder::Held => other.outstanding_bytes.cmp(&one.outstanding_bytes),
        SiteOrder::Blocks => other.outstanding_blocks.cmp(&one.outstanding_blocks),
        SiteOrder::Growth => other.growth_bytes_per_second.total_cmp(&one.growth_bytes_per_second),
        SiteOrder::Age => other.oldest_age_ns.cmp(&one.oldest_age_ns),
    };
    // As the report has them.
    sorted(all, |site| filter.fits_site(site), compare, |_, _| Ordering::Equal, reverse)
}

fn sorted<T>(
    all: &[T],
    fits: impl Fn(&T) -> bool,
    compare: impl Fn(&T, &T) -> Ordering,
    ties: impl Fn(&T, &T) -> Ordering,
    reverse: bool,
) -> Vec<u32> {
    let mut order: Vec<u32> =
        all.iter().enumerate().filter(|(_, one)| fits(one)).map(|(i, _)| i as u32).collect();
    order.sort_by(|&one, &other| {
        let (one, other) = (&all[one as usize], &all[other as usize]);
        let ordering = compare(one, other).then_with(|| ties(one, other));
        if reverse { ordering.reverse() } else { ordering }
    });
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the filter goes by text whatever its case, and that any text
    /// will do as one.
    #[test]
    fn filters() {
        let filter = |text: &str| Filter(text.to_owned());
        assert!(filter("").fits(""));
        assert!(filter("NGI").fits("/usr/sbin/nginx"));
        assert!(filter("ö").fits("größe-ö"));
        assert!(!filter("nginx!").fits("nginx"));
        assert!(!filter("x").fits(""));
        let mut long = Filter::default();
        (0..1000).for_each(|_| long.push('ä'));
        assert_eq!(long.text().chars().count(), Filter::LIMIT);
    }

    /// Check that what is known to grow comes before what is traced, and that
    /// before noise that is steeper.
    #[test]
    fn growth_before_noise() {
        let process = |pid, verdict, slope| {
            let mut view = ProcessView { pid, verdict, running: true, ..ProcessView::default() };
            view.growth.bytes_per_second = slope;
            view
        };
        let mut traced = process(5, Verdict::Undetermined, 0.0);
        let trace = crate::protocol::TraceView { active: true, ..Default::default() };
        traced.trace = Some(trace);
        let all = [
            process(1, Verdict::Undetermined, 1e9),
            process(2, Verdict::Growing, 100.0),
            process(3, Verdict::Stable, f64::NAN),
            process(4, Verdict::Growing, 200.0),
            traced,
        ];
        let order = |every| processes(&all, every, &Filter::default(), Sort::Growth, false);
        assert_eq!(order(false), [3, 1, 4]);
        assert_eq!(order(true)[..3], [3, 1, 4]);
        assert_eq!(order(true).len(), 5);
    }
}
