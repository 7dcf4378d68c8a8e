//! The verdict on a call site, and on a process.
//!
//! A leak is told by three things together:
//!
//! 1. **It is settled.** From some age on its blocks are not freed any more, however
//!    many were freed before. Of caches and of traffic the old ones go, too.
//! 2. **It goes on.** The survivors were allocated all through the time that was
//!    watched, evenly. Start-up data and caches that fill up stop.
//! 3. **It replaces nothing.** The process does not free, at the same time, as many
//!    blocks from before the trace, unless its memory grows by as much. A cache that
//!    was full at the attach does.
//!
//! What remains alike is told as a leak of medium confidence: a cache that is being
//! filled at a steady pace, of which nothing was ever freed.

mod pace;
mod settled;
#[cfg(test)]
mod tests;
mod words;

use leakd_common::site::Site;

use super::births::{Births, PARTS};
use super::growth::{Growth, Rate};
use super::{Confidence, Verdict};
use crate::watch::growth::Trend;

use pace::Pace;
use settled::Settled;

/// A site must have been watched for so long to be judged: a part of the time is then
/// a third of a second, above what most requests take.
const LEAST_SPAN_NS: u64 = 20_000_000_000;
/// And for so long to be told as a leak: what programs do each minute (sessions, keep-alive,
/// batches) is seen to end.
const LEAK_SPAN_NS: u64 = 60_000_000_000;
/// Allocations that may be lost. All rules here are of factors of 1.4 and more, which
/// so few cannot turn.
const LOST_SHARE: f64 = 0.1;
/// A process that frees so many blocks from before the trace for each one that stays
/// may be replacing them.
const REPLACED_SHARE: f64 = 0.5;

/// What is known of a call site.
#[derive(Clone, Copy, Debug)]
pub struct SiteFacts<'a> {
    /// Its totals.
    pub totals: &'a Site,
    /// When its outstanding blocks were allocated; `None`: that is not known.
    pub births: Option<&'a Births>,
    /// Its outstanding bytes over time, if they were followed.
    pub growth: Option<Growth>,
    /// Whether it is one call stack, and not several.
    pub is_one_stack: bool,
    /// Blocks that were freed unseen (the kernel's only).
    pub freed_unseen: u64,
}

impl SiteFacts<'_> {
    /// How many blocks each that was recorded stands for: more than 1 if sampled.
    fn weight(&self) -> f64 {
        let recorded = self.births.map_or(0, Births::count);
        let weight = self.totals.outstanding_blocks() as f64 / recorded.max(1) as f64;
        weight.max(1.0)
    }
}

/// What is known of the process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessFacts {
    /// How long it was under trace, in nanoseconds.
    pub span_ns: u64,
    /// Whether that was from its first instruction on.
    pub from_start: bool,
    /// Spans of time in which probes were in; 1: always.
    pub windows: u64,
    /// The share of its allocations that were lost.
    pub lost_share: f64,
    /// Whether only some of the allocations were recorded.
    pub sampled: bool,
    /// Blocks from before the trace that it frees a second.
    pub replaced_per_second: f64,
    /// Its anonymous memory over time, if that was followed.
    pub memory: Option<Growth>,
}

/// A verdict and its reasons.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Opinion {
    /// The verdict.
    pub verdict: Verdict,
    /// How sure a leak is; `None`: it is none.
    pub confidence: Option<Confidence>,
    /// One line for a person.
    pub evidence: String,
    /// By how much it grows, if it does.
    pub rate: Option<Rate>,
}

/// Judges a call site.
pub fn judge(site: &SiteFacts<'_>, process: &ProcessFacts) -> Opinion {
    let births = match known(site, process) {
        Ok(births) => births,
        Err(evidence) => return Opinion { evidence, ..Opinion::default() },
    };
    let settled = Settled::of(site.totals, births, site.weight());
    let pace = settled.as_ref().map(|settled| Pace::of(settled.survivors));
    let growing = site.growth.is_some_and(|growth| growth.trend == Trend::Growing);
    let rate = |settled: &Settled<'_>| rate(site, settled, births);
    let opinion = |verdict, evidence| Opinion { verdict, evidence, ..Opinion::default() };
    let grower = |rate, evidence| Opinion {
        verdict: Verdict::Growing,
        rate,
        evidence,
        ..Opinion::default()
    };
    match (&settled, pace) {
        (Some(settled), Some(Pace::Steady)) => {
            let found = rate(settled);
            let short = process.span_ns < LEAK_SPAN_NS;
            let evidence = words::leak(site, settled, &found);
            if short {
                return grower(Some(found), words::too_short(process, &evidence));
            }
            let Some(open) = open_question(site, process, settled, &found) else {
                let confidence = Some(confidence(site, process, settled));
                let verdict = Verdict::Leak;
                return Opinion { verdict, confidence, evidence, rate: Some(found) };
            };
            opinion(Verdict::Undetermined, format!("{evidence}; but {open}"))
        }
        (Some(settled), Some(Pace::Slowing)) => {
            let found = rate(settled);
            grower(Some(found), words::slowing(site, settled, &found))
        }
        (Some(settled), Some(Pace::Fading)) => match replaced(site, births) {
            Some(later) => opinion(Verdict::CacheLike, words::replaced(site, later)),
            None => opinion(Verdict::WarmUp, words::fading(site, settled, process)),
        },
        _ if growing => {
            let found = site.growth.map(Rate::from);
            grower(found, words::growing(site, settled.as_ref(), found))
        }
        (Some(settled), Some(Pace::Few)) if settled.is_spread() => {
            opinion(Verdict::Undetermined, words::few(site, settled))
        }
        _ => bounded(site, births, process),
    }
}

/// What is known, or why that is too little.
fn known<'a>(site: &SiteFacts<'a>, process: &ProcessFacts) -> Result<&'a Births, String> {
    if process.windows > 1 {
        return Err("probes were in for a part of the time only: frees were missed".to_owned());
    }
    if process.lost_share > LOST_SHARE {
        return Err(words::lost(process));
    }
    if !site.is_one_stack {
        return Err("its call stack was not seen: it may stand for several".to_owned());
    }
    if site.freed_unseen > 0 {
        return Err(words::freed_unseen(site));
    }
    if process.span_ns < LEAST_SPAN_NS {
        return Err(words::span_only(process));
    }
    match site.births.filter(|births| births.count() > 0) {
        Some(births) => Ok(births),
        None if site.totals.outstanding_blocks() == 0 => Err("nothing is outstanding".to_owned()),
        None => Err("the ages of its blocks are not known".to_owned()),
    }
}

/// Why what looks like a leak may be none; `None`: it is one.
fn open_question(
    site: &SiteFacts<'_>,
    process: &ProcessFacts,
    settled: &Settled<'_>,
    rate: &Rate,
) -> Option<&'static str> {
    let grows = process.memory.is_some_and(|memory| {
        memory.interval.low > 0.0 && memory.slope >= rate.bytes_per_second / 2.0
    });
    if process.from_start && !process.sampled || grows {
        return None;
    }
    if process.sampled {
        return Some("of samples alone, without the process growing by as much, that is not sure");
    }
    let staying = settled.per_second(site.weight());
    (process.replaced_per_second > staying * REPLACED_SHARE).then_some(
        "the process frees as many blocks from before the trace, and does not grow by as much",
    )
}

fn confidence(site: &SiteFacts<'_>, process: &ProcessFacts, settled: &Settled<'_>) -> Confidence {
    if process.sampled || process.lost_share > 0.01 {
        return Confidence::Low;
    }
    // That the program does free such blocks says that these were forgotten.
    let freed = site.totals.freed_blocks as f64 / site.weight();
    match freed >= settled.kept {
        true => Confidence::High,
        false => Confidence::Medium,
    }
}

/// By how much what stays grows: as the series has it, if the site has no traffic that
/// hides it, else by counting the survivors, with the error of a count.
fn rate(site: &SiteFacts<'_>, settled: &Settled<'_>, births: &Births) -> Rate {
    let mean =
        site.totals.outstanding_bytes() as f64 / site.totals.outstanding_blocks().max(1) as f64;
    let counted = settled.per_second(site.weight()) * mean;
    let error = counted * 1.96 / settled.kept.max(1.0).sqrt();
    let by_count =
        Rate { bytes_per_second: counted, low: (counted - error).max(0.0), high: counted + error };
    let most = settled.kept * 2.0 >= births.count() as f64;
    site.growth.filter(|growth| most && growth.interval.low > 0.0).map_or(by_count, Rate::from)
}

impl From<Growth> for Rate {
    fn from(growth: Growth) -> Self {
        let Growth { slope, interval, .. } = growth;
        Self { bytes_per_second: slope, low: interval.low, high: interval.high }
    }
}

/// Of a site that does not grow: what it does instead.
fn bounded(site: &SiteFacts<'_>, births: &Births, process: &ProcessFacts) -> Opinion {
    let opinion = |verdict, evidence| Opinion { verdict, evidence, ..Opinion::default() };
    match site.growth.map(|growth| growth.trend) {
        Some(Trend::Slowing) => {
            return opinion(Verdict::WarmUp, "grows less and less".to_owned());
        }
        Some(Trend::Bounded) => return opinion(Verdict::CacheLike, words::swings(site)),
        _ => {}
    }
    let third: u64 = births.parts[..PARTS / 3].iter().sum();
    if third as f64 >= 0.8 * births.count() as f64 {
        return opinion(Verdict::WarmUp, words::early(births, process));
    }
    if let Some(growth) = site.growth.filter(|growth| grows_unevenly(growth, site.totals)) {
        return opinion(Verdict::Undetermined, words::unevenly(&growth.into()));
    }
    if let Some(later) = replaced(site, births) {
        return opinion(Verdict::CacheLike, words::replaced(site, later));
    }
    let fresh: u64 = births.parts[PARTS * 2 / 3..].iter().sum();
    if site.totals.freed_blocks == 0
        && fresh > 0
        && site.growth.is_none_or(|growth| growth.interval.high > 0.0)
    {
        return opinion(Verdict::Undetermined, words::held(site, births));
    }
    opinion(Verdict::Stable, words::stable(site))
}

/// Whether it holds at least twice what it began with, though no steady trend is seen.
fn grows_unevenly(growth: &Growth, totals: &Site) -> bool {
    let rise = growth.slope * growth.span;
    growth.interval.low > 0.0 && rise * 2.0 >= totals.outstanding_bytes() as f64
}

/// How many blocks stayed for a while and then went, while others came; `None`: not
/// more than are held, or most went at once.
fn replaced(site: &SiteFacts<'_>, births: &Births) -> Option<u64> {
    let later = Settled::freed_after(site.totals, births.span_ns / PARTS as u64);
    let most = later >= site.totals.freed_blocks / 2;
    (most && later > 0 && later >= site.totals.outstanding_blocks()).then_some(later)
}

/// The verdict on a process: the worst of its call sites', weighed against what its
/// memory does. `sites` need not be in order.
pub fn judge_process<'a>(
    sites: impl Iterator<Item = &'a Opinion>,
    process: &ProcessFacts,
) -> Opinion {
    let mut found: Vec<&Opinion> = sites.collect();
    let urgency = |one: &Opinion| one.verdict.urgency();
    let speed = |one: &Opinion| one.rate.map_or(0.0, |rate| rate.bytes_per_second);
    found.sort_by(|one, other| {
        urgency(other).cmp(&urgency(one)).then(speed(other).total_cmp(&speed(one)))
    });
    let grows = process.memory.filter(|memory| memory.trend == Trend::Growing);
    let worst = found.first().map_or(Verdict::Stable, |one| one.verdict);
    match worst {
        Verdict::Leak | Verdict::Growing => words::process(worst, &found, process),
        // What is not allocated here, or not seen to be.
        _ if grows.is_some() => words::unexplained(&found, process),
        _ => words::quiet(&found, process),
    }
}
