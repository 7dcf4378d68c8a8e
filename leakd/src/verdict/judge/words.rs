//! The evidence, in one line for a person.

use super::settled::Settled;
use super::{Opinion, ProcessFacts, SiteFacts};
use crate::report::rank;
use crate::terminal::{bytes, count, duration, percent};
use crate::verdict::Verdict;
use crate::verdict::births::Births;
use crate::verdict::growth::Rate;

/// "1.00 MiB/min (0.98 MiB to 1.02 MiB)"
pub fn per_minute(rate: &Rate) -> String {
    let minute = |per_second: f64| {
        let sign = if per_second < 0.0 { "-" } else { "" };
        format!("{sign}{}", bytes((per_second.abs() * 60.0).round() as u64))
    };
    let (middle, low, high) = (minute(rate.bytes_per_second), minute(rate.low), minute(rate.high));
    if low == middle && high == middle {
        return format!("{middle}/min");
    }
    format!("{middle}/min ({low} to {high})")
}

fn blocks(number: f64) -> String {
    count(number.round() as u64)
}

fn plural(number: u64) -> &'static str {
    if number == 1 { "block" } else { "blocks" }
}

/// "3,120 of 3,120 blocks older than 60 s were never freed"
fn never_freed(site: &SiteFacts<'_>, settled: &Settled<'_>) -> String {
    let weight = site.weight();
    let (kept, freed) = (settled.kept * weight, settled.freed * weight);
    format!(
        "{} of {} blocks older than {} were never freed",
        blocks(kept),
        blocks(kept + freed),
        duration(settled.age_ns)
    )
}

pub fn leak(site: &SiteFacts<'_>, settled: &Settled<'_>, rate: &Rate) -> String {
    let others = site.totals.freed_blocks;
    let mut text = never_freed(site, settled);
    if others as f64 >= settled.kept * site.weight() {
        text.push_str(&format!(", {} younger ones were", count(others)));
    }
    format!("{text}; grows by {}", per_minute(rate))
}

pub fn too_short(process: &ProcessFacts, evidence: &str) -> String {
    format!("{evidence}; but {} are too short to call it a leak", duration(process.span_ns))
}

pub fn slowing(site: &SiteFacts<'_>, settled: &Settled<'_>, rate: &Rate) -> String {
    let freed = never_freed(site, settled);
    format!("{freed}; grows by {}, but ever more slowly", per_minute(rate))
}

pub fn fading(site: &SiteFacts<'_>, settled: &Settled<'_>, process: &ProcessFacts) -> String {
    let half: u64 = settled.survivors[..settled.survivors.len() / 2].iter().sum();
    format!(
        "{} of {} blocks that stay are from the first half of {}",
        blocks(half as f64 * site.weight()),
        blocks(settled.kept * site.weight()),
        duration(process.span_ns)
    )
}

/// It grows by its series; the blocks do not show a leak.
pub fn growing(site: &SiteFacts<'_>, settled: Option<&Settled<'_>>, rate: Option<Rate>) -> String {
    let by = rate.map_or(String::new(), |rate| format!(" by {}", per_minute(&rate)));
    let freed = site.totals.freed_blocks;
    let why = match settled {
        Some(settled) => {
            let kept = settled.kept * site.weight();
            format!(
                "{} old {} stay: too few, or not evenly enough",
                blocks(kept),
                plural(kept as u64)
            )
        }
        None if freed == 0 => "its blocks are young".to_owned(),
        None => format!("but old blocks are freed, too: {} so far", count(freed)),
    };
    format!("grows{by}; {why}")
}

pub fn unevenly(rate: &Rate) -> String {
    format!("holds more and more, by {}, but not steadily", per_minute(rate))
}

pub fn few(site: &SiteFacts<'_>, settled: &Settled<'_>) -> String {
    format!("{}; too few to tell", never_freed(site, settled))
}

pub fn lost(process: &ProcessFacts) -> String {
    format!("{} of the process's allocations were lost", percent(process.lost_share))
}

pub fn freed_unseen(site: &SiteFacts<'_>) -> String {
    format!("{} of its blocks were freed unseen: more may be gone", count(site.freed_unseen))
}

pub fn span_only(process: &ProcessFacts) -> String {
    format!("watched for {} only", duration(process.span_ns))
}

pub fn swings(site: &SiteFacts<'_>) -> String {
    let freed = count(site.totals.freed_blocks);
    format!("goes up and down between bounds; {freed} blocks were freed")
}

pub fn early(births: &Births, process: &ProcessFacts) -> String {
    let last = births.parts.iter().rposition(|part| *part > 0).unwrap_or(0) as u64 + 1;
    let since = births.span_ns / births.parts.len() as u64 * last;
    let since = duration(since.min(process.span_ns));
    format!("most was allocated at the beginning, the last of it in the first {since}")
}

pub fn replaced(site: &SiteFacts<'_>, later: u64) -> String {
    let held = site.totals.outstanding_blocks();
    format!("holds {} {}, and has replaced {} by others", count(held), plural(held), count(later))
}

pub fn held(site: &SiteFacts<'_>, births: &Births) -> String {
    let held = site.totals.outstanding_blocks();
    let span = duration(births.span_ns);
    format!("{} {}, none freed: too few in {span} to tell", count(held), plural(held))
}

pub fn stable(site: &SiteFacts<'_>) -> String {
    match rank::usual_lifetime_ns(site.totals) {
        Some(lifetime) => {
            format!("does not grow; freed blocks lived less than {}", duration(lifetime))
        }
        None => "does not grow".to_owned(),
    }
}

/// Of a process of which call sites grow.
pub fn process(verdict: Verdict, sorted: &[&Opinion], process: &ProcessFacts) -> Opinion {
    let alike: Vec<_> = sorted.iter().take_while(|one| one.verdict == verdict).collect();
    let sum =
        |part: fn(&Rate) -> f64| alike.iter().filter_map(|one| one.rate.as_ref()).map(part).sum();
    let rate = Rate {
        bytes_per_second: sum(|rate| rate.bytes_per_second),
        low: sum(|rate| rate.low),
        high: sum(|rate| rate.high),
    };
    let what = match (verdict, alike.len()) {
        (Verdict::Leak, 1) => "1 call site leaks".to_owned(),
        (Verdict::Leak, number) => format!("{number} call sites leak"),
        (_, 1) => "1 call site grows".to_owned(),
        (_, number) => format!("{number} call sites grow"),
    };
    let mut evidence = format!("{what}, by {}", per_minute(&rate));
    if let Some(memory) = process.memory {
        let of_it = Rate::from(memory);
        evidence.push_str(&match memory.interval.low > 0.0 {
            true => format!("; the process's memory grows by {}", per_minute(&of_it)),
            false => "; the process's memory does not grow yet".to_owned(),
        });
    }
    let confidence = alike.iter().filter_map(|one| one.confidence).max();
    Opinion { verdict, confidence, evidence, rate: Some(rate) }
}

/// Of a process that grows, though no call site is seen to.
pub fn unexplained(sorted: &[&Opinion], process: &ProcessFacts) -> Opinion {
    let rate = process.memory.map(Rate::from);
    let by = rate.map_or(String::new(), |rate| format!(" by {}", per_minute(&rate)));
    let open = sorted.iter().find(|one| one.verdict == Verdict::Undetermined);
    let evidence = match open {
        Some(open) => {
            let reason = &open.evidence;
            format!("its memory grows{by}; which call site does cannot be told yet: {reason}")
        }
        None => {
            format!("its memory grows{by}, but no call site does: fragmentation, or not by malloc")
        }
    };
    Opinion { verdict: Verdict::Growing, confidence: None, evidence, rate }
}

/// Of a process of which no call site grows.
pub fn quiet(sorted: &[&Opinion], process: &ProcessFacts) -> Opinion {
    let open = sorted.iter().filter(|one| one.verdict == Verdict::Undetermined).count();
    let (verdict, evidence) = match (open, sorted.len()) {
        (_, 0) => (Verdict::Stable, "nothing is outstanding".to_owned()),
        (0, _) => (Verdict::Stable, "no call site grows".to_owned()),
        (open, all) if open == all => {
            let first = sorted.first().map_or("", |one| one.evidence.as_str());
            (Verdict::Undetermined, first.to_owned())
        }
        (open, all) => {
            let of = format!("no call site is seen to grow; {open} of {all} cannot be told yet");
            (Verdict::Stable, of)
        }
    };
    let evidence = match process.span_ns {
        _ if !sorted.is_empty() => evidence,
        span => format!("{evidence} after {}", duration(span)),
    };
    Opinion { verdict, evidence, ..Opinion::default() }
}
