//! From what the engine saw to the model of the report.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use leakd_common::event::StackEnd as WalkEnd;
use leakd_common::site::OVERFLOW_SITE;
use leakd_common::target::Counter;

use super::bad_free::BadFree;
use super::input::{BadFreeSnapshot, SiteAges, SiteSnapshot, Snapshot, TargetSnapshot};
use super::model::{
    Coverage, Frame, Heap, Lifetime, Omitted, Outstanding, Report, SCHEMA, Site, StackEnd, Stacks,
    Stopped, Survival, Target, WithoutTable,
};
use super::{rank, time};
use crate::scan::memory::is_c_library;
use crate::symbol;
use crate::verdict::exhaustion::OutOfMemory;
use crate::verdict::growth::Growth;
use crate::verdict::judge::ProcessFacts;
use crate::verdict::survival::{Curve, Interval};
use crate::watch::growth::Trend;
use crate::watch::limit::Limit;

mod judged;

use judged::{process_facts, site_opinion};

/// What the user asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Blocks younger than this, in nanoseconds, are to rank no site.
    pub min_age_ns: u64,
    /// Call sites of each target that are listed; `None`: all.
    pub top: Option<usize>,
}

/// Makes the report. Sites with equal stacks are merged, sites without
/// outstanding blocks left out, the others ranked: see [`super::rank`].
pub fn build(snapshot: Snapshot, settings: &Settings) -> Report {
    Report {
        schema: SCHEMA.to_owned(),
        started: time::rfc3339(snapshot.started),
        ended: time::rfc3339(snapshot.ended),
        host: snapshot.host,
        kernel: snapshot.kernel,
        leakd: env!("CARGO_PKG_VERSION").to_owned(),
        min_age_ns: settings.min_age_ns,
        targets: snapshot
            .targets
            .into_iter()
            .map(|target| build_target(target, settings))
            .collect(),
    }
}

fn build_target(target: TargetSnapshot, settings: &Settings) -> Target {
    let coverage = coverage(&target);
    let estimated = target.sample_bytes > 0;
    let mut outstanding = Outstanding { estimated, ..Outstanding::default() };
    for site in &target.sites {
        outstanding.bytes = outstanding.bytes.saturating_add(site.site.outstanding_bytes());
        outstanding.blocks = outstanding.blocks.saturating_add(site.site.outstanding_blocks());
    }
    let heap = heap(&target, &coverage, &outstanding);
    let watched = Watched {
        sample_bytes: target.sample_bytes,
        whole: target.windows.count <= 1 && coverage.lost_total() == 0,
        facts: process_facts(&target, &coverage),
    };
    let mut sites: Vec<Site> = merge(target.sites)
        .into_iter()
        .filter(|site| site.site.outstanding_blocks() > 0)
        .map(|site| build_site(site, target.filling_ns, watched))
        .collect();
    let verdict = judged::of_process(&sites, &watched.facts);
    sites.sort_by(|a, b| {
        let key = |site: &Site| {
            let urgency = site.verdict.word.urgency();
            (urgency, site.rank_bytes, site.aged_bytes, site.outstanding_bytes)
        };
        key(b).cmp(&key(a)).then_with(|| a.id.cmp(&b.id))
    });
    let mut omitted = Omitted::default();
    for site in sites.drain(settings.top.unwrap_or(usize::MAX).min(sites.len())..) {
        omitted.sites += 1;
        omitted.bytes = omitted.bytes.saturating_add(site.outstanding_bytes);
        omitted.blocks = omitted.blocks.saturating_add(site.outstanding_blocks);
    }
    Target {
        pid: target.pid,
        comm: target.comm,
        exe: target.exe,
        ended: target.ended,
        execs: target.execs,
        duration_ns: target.duration_ns,
        min_age_ns: target.min_age_ns,
        coverage,
        outstanding,
        heap,
        memory: target.memory,
        out_of_memory: out_of_memory(target.limit, target.memory_growth),
        bad_frees: target.bad_frees.map(bad_frees),
        probes: target.probes,
        verdict,
        sites,
        omitted,
        kernel: target.kernel,
    }
}

/// Sums over the heap. What was counted is of all programs that the process has run,
/// so after an exec it is what the call sites sum up to.
fn heap(target: &TargetSnapshot, coverage: &Coverage, outstanding: &Outstanding) -> Heap {
    let sum = |of: fn(&leakd_common::site::Site) -> u64| {
        target.sites.iter().fold(0u64, |sum, site| sum.saturating_add(of(&site.site)))
    };
    let (allocations, frees) = match target.execs {
        0 => (coverage.allocations, coverage.frees),
        _ => (sum(|site| site.allocated_blocks), sum(|site| site.freed_blocks)),
    };
    Heap {
        allocations,
        frees,
        allocated_bytes: sum(|site| site.allocated_bytes),
        in_use_bytes: outstanding.bytes,
        in_use_blocks: outstanding.blocks,
    }
}

/// When a process that grows will have used up what it may have.
fn out_of_memory(limit: Option<Limit>, growth: Option<Growth>) -> Option<OutOfMemory> {
    let growth = growth.filter(|growth| growth.trend == Trend::Growing)?;
    OutOfMemory::of(limit?, growth.slope, growth.interval)
}

/// What in glibc frees the cache of a thread that ends (malloc/malloc.c, arena.c).
const CACHE_FREES: [&str; 3] =
    ["tcache_thread_shutdown", "__malloc_arena_thread_freeres", "arena_thread_freeres"];

/// Without what the C library frees by itself: at a thread's end, the thread's cache,
/// which no call of malloc has made. It may lie where a block was freed before, and so
/// look as if it were freed twice. In the library's own file, these functions may
/// have no names; a program that it is linked into has them, since malloc was found
/// there.
fn bad_frees(found: Vec<BadFreeSnapshot>) -> Vec<BadFree> {
    let is_of_library = |frame: &symbol::Frame| {
        let named = |name: &str| CACHE_FREES.contains(&name);
        let module = frame.module.as_deref().map(Path::new);
        module.is_some_and(is_c_library) || frame.function.as_deref().is_some_and(named)
    };
    let by_itself =
        |site: &SiteSnapshot| site.frames.first().is_some_and(|one| one.iter().any(is_of_library));
    found.into_iter().filter(|one| !by_itself(&one.site)).map(BadFree::new).collect()
}

fn coverage(target: &TargetSnapshot) -> Coverage {
    let get = |counter| target.counters.get(counter);
    let interrupted = target.kernel.as_ref().map_or(0, |kernel| kernel.missed_allocations);
    let lost: BTreeMap<String, u64> = [
        ("ledger_full", Counter::LostLedgerFull),
        ("no_memory", Counter::LostNoMemory),
        ("thread_state", Counter::LostThread),
        ("unpaired", Counter::LostUnpaired),
    ]
    .into_iter()
    .map(|(cause, counter)| (cause, get(counter)))
    .chain([("interrupted", interrupted)])
    .filter(|(_, count)| *count > 0)
    .map(|(cause, count)| (cause.to_owned(), count))
    .collect();
    Coverage {
        seen_from: target.seen_from,
        allocations: target.counters.allocations(),
        frees: target.counters.frees(),
        lost,
        lost_bytes: get(Counter::LostBytes),
        sampled_bytes: target.sample_bytes,
        sampled_out: get(Counter::SampledOut),
        unknown_frees: get(Counter::UnknownFrees),
        unchecked_frees: unchecked_frees(target),
        failed: get(Counter::Failed),
        double_frees: get(Counter::DoubleFrees),
        unattributed: get(Counter::SitesFull),
        stacks: stacks(&target.sites),
        stopped: stopped(&target.sites),
        without_table: target.without_table.iter().map(without_table).collect(),
        unprobed: target.unprobed.clone(),
        windows: target.windows,
        table_bytes: target.table_bytes,
    }
}

/// Frees that were not remembered, and wrong ones that there was no room for.
fn unchecked_frees(target: &TargetSnapshot) -> u64 {
    let told = target.bad_frees.iter().flatten().map(|one| one.bad.count).sum();
    let untold = target.counters.get(Counter::BadFrees).saturating_sub(told);
    target.counters.get(Counter::LostFrees).saturating_add(untold)
}

/// Merges sites with equal addresses: an exec or a new epoch gives the same
/// stack another key. Without a stack there is nothing to tell them by.
fn merge(sites: Vec<SiteSnapshot>) -> Vec<SiteSnapshot> {
    let mut merged: Vec<SiteSnapshot> = Vec::with_capacity(sites.len());
    let mut by_stack: HashMap<_, usize> = HashMap::new();
    for site in sites {
        if site.addresses.is_empty() {
            merged.push(site);
            continue;
        }
        let stack = site.identity();
        match by_stack.get(&stack) {
            Some(index) => add(&mut merged[*index], site),
            None => {
                by_stack.insert(stack, merged.len());
                merged.push(site);
            }
        }
    }
    merged
}

fn add(into: &mut SiteSnapshot, other: SiteSnapshot) {
    into.key = into.key.min(other.key); // not of the order in which they came
    // The same addresses, once doubted and once not: they were right. Where none is
    // whole, they may be wrong in the same way.
    let is_whole = other.end.is_some_and(WalkEnd::complete);
    let is_doubted = other.end == Some(WalkEnd::Stale);
    if is_whole || is_doubted && !into.end.is_some_and(WalkEnd::complete) {
        into.end = other.end;
    }
    let (a, b) = (&mut into.site, &other.site);
    for (total, value) in [
        (&mut a.allocated_blocks, b.allocated_blocks),
        (&mut a.allocated_bytes, b.allocated_bytes),
        (&mut a.freed_blocks, b.freed_blocks),
        (&mut a.freed_bytes, b.freed_bytes),
    ]
    .into_iter()
    .chain(a.lifetimes.iter_mut().zip(b.lifetimes))
    {
        *total = total.saturating_add(value);
    }
    if let (Some(a), Some(b)) = (&mut into.kernel, other.kernel) {
        a.add(b);
    }
    into.growth = match (into.growth, other.growth) {
        (Some(a), Some(b)) => Some(a.plus(b)),
        (a, b) => a.or(b),
    };
    match (&mut into.ages, other.ages) {
        (Some(a), Some(b)) => add_ages(a, b),
        (ages @ None, b) => *ages = b,
        (Some(_), None) => {}
    }
}

fn add_ages(a: &mut SiteAges, b: SiteAges) {
    a.aged_blocks = a.aged_blocks.saturating_add(b.aged_blocks);
    a.aged_bytes = a.aged_bytes.saturating_add(b.aged_bytes);
    a.oldest_ns = a.oldest_ns.max(b.oldest_ns);
    a.births.add(&b.births);
    a.sample_ns.extend(b.sample_ns);
    a.sample_ns.sort_unstable();
    // The samples are the only thing that both medians can be joined by.
    a.median_ns = a.sample_ns.get(a.sample_ns.len() / 2).copied().unwrap_or(a.median_ns);
}

/// How a target's blocks were watched.
#[derive(Clone, Copy)]
struct Watched {
    /// Mean bytes between two samples; 0: all blocks.
    sample_bytes: u64,
    /// Nothing was missed: neither blocks nor frees.
    whole: bool,
    /// What verdicts rest on.
    facts: ProcessFacts,
}

/// How many blocks each that was recorded stands for.
fn weight(site: &leakd_common::site::Site, sample_bytes: u64) -> f64 {
    let mean = site.allocated_bytes as f64 / site.allocated_blocks.max(1) as f64;
    match sample_bytes {
        0 => 1.0,
        // Of blocks of that size, one of so many is recorded.
        bytes => 1.0 / (1.0 - (-mean / bytes as f64).exp()).max(1e-6),
    }
}

/// The share of blocks that are never freed: `None` if ages are unknown, if blocks or
/// frees were missed, or if no block has been watched for long enough after the last
/// free to tell (twice as long as any that was freed lived).
fn survival(snapshot: &SiteSnapshot, watched: Watched) -> Option<Survival> {
    let site = &snapshot.site;
    let ages = snapshot.ages.as_ref().filter(|_| watched.whole)?;
    let curve = Curve::of(site, &ages.births.by_age, weight(site, watched.sample_bytes));
    let settled_ns = curve.settled_ns();
    let step = curve.at(settled_ns)?;
    let Interval { low, high } = step.interval();
    (step.at_risk >= 1.0 && ages.oldest_ns / 2 >= settled_ns).then_some(Survival {
        share: step.share,
        low,
        high,
        settled_ns,
    })
}

fn build_site(snapshot: SiteSnapshot, filling_ns: u64, watched: Watched) -> Site {
    let survival = survival(&snapshot, watched);
    let opinion = site_opinion(&snapshot, watched);
    let site = &snapshot.site;
    let ages = snapshot.ages.as_ref();
    let surviving = rank::surviving_share(site);
    let overdue = ages.and_then(|ages| rank::overdue_share(site, &ages.sample_ns));
    let aged_bytes = ages.map_or(0, |ages| ages.aged_bytes);
    let reused = snapshot.kernel.as_ref().map_or(0, |kernel| kernel.reused);
    let certain = rank::certainty(site.outstanding_blocks(), reused);
    Site {
        id: format!("{:016x}", snapshot.key),
        verdict: opinion.into(),
        outstanding_bytes: site.outstanding_bytes(),
        outstanding_blocks: site.outstanding_blocks(),
        aged_bytes,
        aged_blocks: ages.map_or(0, |ages| ages.aged_blocks),
        rank_bytes: (rank::rank_bytes(aged_bytes, surviving, overdue) as f64 * certain).round()
            as u64,
        oldest_age_ns: ages.map(|ages| ages.oldest_ns),
        median_age_ns: ages.map(|ages| ages.median_ns),
        surviving_share: surviving,
        overdue_share: overdue,
        survival,
        allocated_bytes: site.allocated_bytes,
        allocated_blocks: site.allocated_blocks,
        freed_bytes: site.freed_bytes,
        freed_blocks: site.freed_blocks,
        allocations_per_second: per_second(site.allocated_blocks, filling_ns),
        growth_bytes_per_second: per_second(site.outstanding_bytes(), filling_ns),
        lifetimes: site
            .lifetimes
            .iter()
            .enumerate()
            .filter(|(_, blocks)| **blocks > 0)
            .map(|(bucket, blocks)| Lifetime {
                below_ns: rank::bucket_bound(bucket),
                blocks: *blocks,
            })
            .collect(),
        stack_end: stack_end(&snapshot),
        frame_pointer_steps: snapshot.frame_pointer_steps,
        kernel: snapshot.kernel,
        stack: snapshot.frames.into_iter().flatten().map(model_frame).collect(),
    }
}

fn per_second(value: u64, duration_ns: u64) -> f64 {
    if duration_ns == 0 { 0.0 } else { value as f64 * 1e9 / duration_ns as f64 }
}

/// A frame as the report has it.
pub(crate) fn model_frame(frame: symbol::Frame) -> Frame {
    Frame {
        function: frame.function,
        file: frame.file,
        line: frame.line,
        module: frame.module,
        build_id: frame.build_id,
        address: format!("{:#x}", frame.address),
        inlined: frame.inlined,
        offset: frame.offset,
    }
}

pub(crate) fn stack_end(site: &SiteSnapshot) -> StackEnd {
    if site.key == OVERFLOW_SITE {
        return StackEnd::SiteTableFull;
    }
    match site.end {
        None => StackEnd::NotSeen,
        Some(WalkEnd::Bottom) => StackEnd::Bottom,
        Some(WalkEnd::NoMapping) => StackEnd::NoMapping,
        Some(WalkEnd::NoTable) => StackEnd::NoTable,
        Some(WalkEnd::NoRow) => StackEnd::NoRow,
        Some(WalkEnd::Unsupported) => StackEnd::Unsupported,
        Some(WalkEnd::Unreadable) => StackEnd::Unreadable,
        Some(WalkEnd::BadFrame) => StackEnd::BadFrame,
        Some(WalkEnd::Internal) => StackEnd::Internal,
        Some(WalkEnd::ZeroReturn) => StackEnd::ZeroReturn,
        Some(WalkEnd::Depth) => StackEnd::Depth,
        Some(WalkEnd::Stale) => StackEnd::Stale,
    }
}

/// Each allocation kept has had its stack walked: those whose stack is known,
/// and those of them whose stack is whole.
fn stacks(sites: &[SiteSnapshot]) -> Stacks {
    sites.iter().fold(Stacks::default(), |sum, site| {
        let walked = if site.end.is_some() { site.site.allocated_blocks } else { 0 };
        let whole = site.end.is_some_and(WalkEnd::complete);
        Stacks {
            walked: sum.walked.saturating_add(walked),
            complete: sum.complete.saturating_add(if whole { walked } else { 0 }),
        }
    })
}

fn without_table((module, reason): (&String, &String)) -> WithoutTable {
    WithoutTable { module: module.clone(), reason: reason.clone() }
}

/// Where the others stopped and why, by the allocations that it was met in.
fn stopped(sites: &[SiteSnapshot]) -> Vec<Stopped> {
    let mut counts: BTreeMap<(Option<&str>, StackEnd), u64> = BTreeMap::new();
    for site in sites.iter().filter(|site| !site.end.is_some_and(WalkEnd::complete)) {
        if site.end.is_some() && site.site.allocated_blocks > 0 {
            let place = (site.outermost.as_deref(), stack_end(site));
            let count = counts.entry(place).or_default();
            *count = count.saturating_add(site.site.allocated_blocks);
        }
    }
    let stopped = |((module, end), walked): ((Option<&str>, _), _)| Stopped {
        module: module.map(str::to_owned),
        end,
        walked,
    };
    let mut list: Vec<Stopped> = counts.into_iter().map(stopped).collect();
    list.sort_by_key(|one| std::cmp::Reverse(one.walked));
    list
}

#[cfg(test)]
mod tests;
