//! Processes as clients see them.

use leakd_common::target::{Counter, TargetCounters};

use super::active::points;
use super::answers::stage;
use super::core::Core;
use super::decide::{is_allowed, verdict_of};
use super::subject::{Key, Subject};
use crate::protocol::{
    Growth, KERNEL_PID, KernelGrowth, KernelMemoryView, ProcessView, TraceView, Verdict,
};
use crate::verdict::exhaustion::OutOfMemory;
use crate::watch::Watched;
use crate::watch::growth::{Judgement, Trend};
use crate::watch::kernel::KernelWatch;
use crate::watch::kernel::meminfo::Total;
use crate::watch::limit::Limits;
use crate::watch::read::{self, Identity};

/// Allocations that were lost, whatever the cause.
pub(super) fn lost(counters: &TargetCounters) -> u64 {
    [Counter::LostLedgerFull, Counter::LostNoMemory, Counter::LostThread, Counter::LostUnpaired]
        .into_iter()
        .map(|counter| counters.get(counter))
        .sum()
}

/// Points of a series that a slope is told from: of n, n * n / 2 pairs are looked at.
const MOST_POINTS: usize = 200;

/// When the memory that its control groups leave a process will be used up.
pub(super) fn out_of_memory(limits: &Limits, process: &Watched) -> Option<OutOfMemory> {
    let limit = limits.of(process.identity.pid)?;
    // The span that its growth was told from.
    let series = process.history.series();
    let begin = series.last()?.time - process.judgement.span;
    let recent = &series[series.partition_point(|sample| sample.time < begin)..];
    let newest = &recent[recent.len().saturating_sub(MOST_POINTS)..];
    let (slope, interval) = crate::verdict::growth::sen(newest)?;
    OutOfMemory::of(limit, slope, interval)
}

impl Core {
    /// The processes: `all`, or those that were ever of interest.
    pub(super) fn views(&self, pid: Option<u32>, all: bool, series: bool) -> Vec<ProcessView> {
        let boot = read::since_boot();
        let mut views = Vec::new();
        let watch = self.lock();
        let clock = watch.now();
        for process in watch.processes() {
            let key = (process.identity.pid, process.identity.start_time);
            let subject = self.subjects.get(&key);
            let growing = process.judgement.trend == Trend::Growing;
            if pid.is_some_and(|pid| pid != key.0) || !(all || growing || subject.is_some()) {
                continue;
            }
            let mut view = self.view(&process.identity, subject, growing, series);
            view.age_ms = process.identity.age(boot).as_millis() as u64;
            view.running = true;
            figures(&mut view, process);
            if growing {
                view.out_of_memory = out_of_memory(&self.limits, process);
            }
            // Open descriptors take a stat(2) each: cheap, but not for all.
            if subject.is_some() || pid.is_some() {
                view.descriptors = read::descriptors(key.0);
            }
            if series {
                view.series = points(&process.history, clock);
            }
            views.push(view);
        }
        let there = |key: &Key| {
            watch.process(key.0).is_some_and(|process| process.identity.start_time == key.1)
        };
        for (key, subject) in &self.subjects {
            if !there(key) && pid.is_none_or(|pid| pid == key.0) {
                views.push(self.view(&subject.identity, Some(subject), false, series));
            }
        }
        if pid.is_none_or(|pid| pid == KERNEL_PID) {
            views.extend(self.kernel_process(watch.kernel(), all, series));
        }
        views
    }

    fn view(
        &self,
        identity: &Identity,
        subject: Option<&Subject>,
        growing: bool,
        series: bool,
    ) -> ProcessView {
        let key = (identity.pid, identity.start_time);
        ProcessView {
            pid: identity.pid,
            start_time: identity.start_time,
            comm: identity.comm.clone(),
            exe: identity.exe.clone(),
            uid: identity.uid,
            cgroup: identity.group.path.clone(),
            unit: identity.group.unit.clone(),
            container: identity.group.container.clone(),
            stage: stage(subject, is_allowed(&self.config, identity), growing),
            verdict: subject.map_or(Verdict::Undetermined, |subject| subject.verdict),
            trace: subject.and_then(|subject| self.trace_view(key, subject, series)),
            ..ProcessView::default()
        }
    }

    fn trace_view(&self, key: Key, subject: &Subject, series: bool) -> Option<TraceView> {
        let Some(active) = &subject.active else {
            let untraceable = subject
                .untraceable
                .clone()
                .map(|error| TraceView { error: Some(error), ..TraceView::default() });
            let mut last = subject.last.clone().or(untraceable)?;
            if !series {
                last.series.clear();
            }
            return Some(last);
        };
        let engine = self.trace.as_ref()?.engine();
        let target = engine.target(active.slot);
        let counters = target.and_then(|target| engine.counters(target).ok()).unwrap_or_default();
        let own = self.config.budget.target_percent.share();
        let budget = self.budgets.get(&key).copied().unwrap_or(own);
        Some(active.view(target, &counters, budget, self.now(), series))
    }
}

fn figures(view: &mut ProcessView, process: &Watched) {
    let figures = &process.figures;
    view.anonymous_bytes = figures.anonymous_bytes;
    view.resident_bytes = figures.resident_bytes;
    view.swap_bytes = figures.swap_bytes;
    view.data_bytes = figures.data_bytes;
    view.threads = figures.threads;
    view.heap_bytes = process.detail.and_then(|detail| detail.heap_bytes);
    view.proportional_bytes = process.detail.and_then(|detail| detail.proportional_bytes);
    view.growth = growth(&process.judgement);
    if view.verdict == Verdict::Undetermined {
        view.verdict = verdict_of(process.judgement.trend);
    }
}

pub(super) fn growth(judgement: &Judgement) -> Growth {
    Growth {
        bytes_per_second: judgement.slope,
        span_ms: (judgement.span * 1000.0) as u64,
        z: judgement.z,
    }
}

/// The kernel's own memory.
pub(super) fn kernel_memory(watch: &KernelWatch) -> KernelMemoryView {
    let growing = watch.growing().into_iter().map(|one| KernelGrowth {
        kind: if one.is_cache { "cache" } else { "total" }.to_owned(),
        reclaimable: one.is_reclaimable,
        bytes: one.bytes,
        growth: growth(&one.judgement),
        name: one.name,
    });
    KernelMemoryView {
        slab_unreclaimable_bytes: watch.total(Total::SlabUnreclaimable),
        reclaimable_bytes: watch.total(Total::Reclaimable),
        per_cpu_bytes: watch.total(Total::PerCpu),
        vmalloc_bytes: watch.total(Total::Vmalloc),
        page_table_bytes: watch.total(Total::PageTables),
        stack_bytes: watch.total(Total::Stacks),
        caches: watch.caches(),
        caches_left_out: watch.left_out(),
        caches_error: watch.caches_error().map(str::to_owned),
        growing: growing.collect(),
    }
}
