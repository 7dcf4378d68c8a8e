//! A process under trace: its governor and what was learned so far.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use leakd_common::site::Site;
use leakd_common::target::{Counter, TargetCounters};

use super::leaks::Leaks;
use super::view::lost;
use super::windows::WindowHistory;
use crate::engine::snapshot::SiteBlocks;
use crate::engine::target::{Target, TargetLook};
use crate::governor::{Controller, Decision, Factor, Load, Prices, Step};
use crate::protocol::{Evidence, EvidenceSite, GovernorStep, Point, TraceView};
use crate::report::{rank, time};
use crate::verdict::Verdict;
use crate::verdict::sites::{Grower, SiteHistories};
use crate::watch::history::History;

/// A reading of what the governor measures by.
#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Instant,
    counters: TargetCounters,
    cpu: Duration,
}

/// A control period that is shorter, since a trace has just begun, tells nothing.
const SHORTEST: Duration = Duration::from_millis(300);

/// Blocks that are kept from one window to the next: each end of one reads all.
const MOST_KEPT: u64 = 200_000;

/// A window that ends: what its tables hold.
#[derive(Clone, Copy, Debug)]
pub struct ClosedWindow<'a> {
    /// When it began and ended, CLOCK_MONOTONIC in nanoseconds.
    pub begin_ns: u64,
    /// Its end.
    pub end_ns: u64,
    /// Totals of all sites.
    pub totals: &'a HashMap<u64, Site>,
    /// Their blocks.
    pub blocks: &'a HashMap<u64, SiteBlocks>,
}

/// A process under trace.
#[derive(Debug)]
pub struct Active {
    /// Its slot in the engine.
    pub slot: u16,
    /// Somebody asked for it.
    pub by_hand: bool,
    /// When it is to end.
    pub until: Option<Instant>,
    /// When it began.
    pub began: Instant,
    began_at: SystemTime,
    /// What the governor does with it.
    pub controller: Controller,
    prices: Prices,
    /// Whether functions that allocate, and that free, are single-stepped.
    single_stepped: (bool, bool),
    factor: Factor,
    before: Option<Reading>,
    /// Of the last control period, whether probes were in or not.
    load: Option<Load>,
    outstanding: History,
    sites: SiteHistories,
    windows: WindowHistory,
    leaks: Leaks,
    /// Call sites that grow.
    pub growers: Vec<Grower>,
    /// Names of these.
    pub places: HashMap<u64, String>,
    totals: (u64, u64, u64),
}

impl Active {
    /// A trace that began at `now` on the daemon's clock (seconds).
    pub fn new(target: &Target, prices: Prices, now: f64, by_hand: bool) -> Self {
        let slow = |freeing: bool| {
            target.probes().functions().iter().any(|function| {
                let frees = function.symbol.contains("free") || function.symbol.contains("delete");
                function.single_stepped.is_some() && frees == freeing
            })
        };
        let controller = Controller::new(now, target.sample_bytes());
        Self {
            slot: target.slot(),
            single_stepped: (slow(false), slow(true)),
            by_hand,
            ..Self::with(controller, prices)
        }
    }

    /// The same of the kernel's own memory, which has no slot in the engine.
    pub fn of_kernel(now: f64, by_hand: bool) -> Self {
        let active = Self::with(Controller::without_samples(now), Prices::KERNEL);
        Self { by_hand, factor: Factor::of_guess(), ..active }
    }

    fn with(controller: Controller, prices: Prices) -> Self {
        Self {
            slot: u16::MAX,
            by_hand: false,
            until: None,
            began: Instant::now(),
            began_at: SystemTime::now(),
            controller,
            prices,
            single_stepped: (false, false),
            factor: Factor::default(),
            before: None,
            load: None,
            outstanding: History::default(),
            sites: SiteHistories::default(),
            windows: WindowHistory::default(),
            leaks: Leaks::default(),
            growers: Vec::new(),
            places: HashMap::new(),
            totals: (0, 0, 0),
        }
    }

    /// The beginning of the first control period, and the end of each: measures.
    pub fn measure(&mut self, counters: TargetCounters, cpu: Duration) {
        let reading = Reading { at: Instant::now(), counters, cpu };
        let before = self.before.replace(reading);
        let before = before.filter(|before| reading.at - before.at >= SHORTEST);
        self.load = before.map(|before| {
            let seconds = reading.at.duration_since(before.at).as_secs_f64();
            let cpu_ns = cpu.saturating_sub(before.cpu).as_nanos() as u64;
            Load::between(&before.counters, &counters, seconds, cpu_ns)
        });
    }

    /// For how many nanoseconds the programs would have run for the last control
    /// period's load at these prices.
    pub fn expected_ns(&self, programs: &Prices) -> f64 {
        self.load.map_or(0.0, |load| load.cost_ns(programs) * load.seconds)
    }

    /// Whether the programs' run time is to be measured in the next control
    /// period.
    pub fn is_to_be_timed(&self) -> bool {
        self.controller.is_open() && self.factor.is_due()
    }

    /// The same control period's end: says what is to be done. `timed`: for how
    /// long all targets' programs ran, and for how long they were expected to.
    pub fn control(&mut self, now: f64, timed: Option<(f64, f64)>, budget: f64) -> Decision {
        let load = self.load.filter(|_| self.controller.is_open());
        if load.is_some() {
            self.factor.learn(timed);
            tracing::debug!(slot = self.slot, ?timed, factor = self.factor.value(), "control");
        }
        let (allocating, freeing) = self.single_stepped;
        let prices = self.prices.times(self.factor.value()).with_single_steps(allocating, freeing);
        self.controller.tick(now, load.as_ref(), &prices, budget)
    }

    /// Whether blocks are to be looked at, too, the next time.
    pub fn are_blocks_due(&self, now: f64) -> bool {
        self.leaks.are_due(now) && self.totals.1 <= MOST_KEPT
    }

    /// Adds the totals of all sites at `now`.
    pub fn learn_totals(&mut self, now: f64, totals: &HashMap<u64, Site>, least_slope: f64) {
        self.sum_up(now, totals);
        self.sites.push(now, totals);
        self.growers = self.sites.growers(totals, least_slope);
    }

    /// Adds what a look at `now` has seen; `memory`: what the process has taken, in
    /// bytes.
    pub fn learn(
        &mut self,
        now: f64,
        target: &Target,
        look: &TargetLook,
        memory: Option<u64>,
        least_slope: f64,
    ) {
        self.learn_totals(now, &look.sites, least_slope);
        self.sites.push_process(now, memory, look.counters.get(Counter::UnknownFrees));
        self.leaks.judge(now, target, look, &self.sites, least_slope);
        self.leaks.put_first(&mut self.growers, &look.sites);
    }

    /// What is held of the process by its call sites; `None`: none of them grows.
    pub fn verdict(&self) -> Option<Verdict> {
        let leaks = self.growers.iter().any(|grower| self.leaks.of(grower.site).is_some());
        let worst = if leaks { Verdict::Leak } else { Verdict::Growing };
        (!self.growers.is_empty()).then_some(worst)
    }

    /// The same at the end of a window; `growth`: that of the process, if it
    /// grows, in bytes a second.
    pub fn learn_window(
        &mut self,
        now: f64,
        window: &ClosedWindow<'_>,
        growth: Option<f64>,
        least_slope: f64,
    ) {
        self.sum_up(now, window.totals);
        self.windows.push(window.begin_ns, window.end_ns, window.blocks);
        self.leaks = Leaks::default();
        self.growers = self.windows.growers(window.totals, least_slope, growth);
    }

    /// What call sites held over time, unless probes are in at times only.
    pub fn history(&self) -> Option<&SiteHistories> {
        (!self.is_in_windows()).then_some(&self.sites)
    }

    /// Whether probes are in for a second at a time only.
    pub fn is_in_windows(&self) -> bool {
        matches!(self.controller.step(), Step::Windows { .. })
    }

    /// Whether the next window is to begin with empty tables.
    pub fn is_to_begin_anew(&self) -> bool {
        self.windows.is_full() || self.totals.1 > MOST_KEPT
    }

    /// The tables are empty again.
    pub fn begin_anew(&mut self) {
        self.sites = SiteHistories::default();
        self.windows = WindowHistory::default();
        self.leaks = Leaks::default();
    }

    fn sum_up(&mut self, now: f64, totals: &HashMap<u64, Site>) {
        let sum = |part: fn(&Site) -> u64| {
            totals.values().fold(0u64, |sum, site| sum.saturating_add(part(site)))
        };
        let bytes = sum(Site::outstanding_bytes);
        self.totals = (bytes, sum(Site::outstanding_blocks), totals.len() as u64);
        self.outstanding.push(now, bytes);
    }

    /// The call sites that grow, as far as their names are known; `None`:
    /// there are none.
    pub fn evidence(&self) -> Option<Evidence> {
        if self.growers.is_empty() {
            return None;
        }
        let site = |grower: &Grower| EvidenceSite {
            id: format!("{:016x}", grower.site),
            place: self.places.get(&grower.site).cloned().unwrap_or_default(),
            outstanding_bytes: grower.totals.outstanding_bytes(),
            outstanding_blocks: grower.totals.outstanding_blocks(),
            bytes_per_second: grower.slope,
            surviving_share: rank::surviving_share(&grower.totals),
            verdict: self.leaks.of(grower.site).map_or(Verdict::Growing, |leak| leak.verdict),
            confidence: self.leaks.of(grower.site).and_then(|leak| leak.confidence),
            evidence: self.leaks.of(grower.site).map_or(String::new(), |one| one.evidence.clone()),
        };
        Some(Evidence {
            span_ms: match self.windows.span() {
                0.0 => self.sites.span().as_millis() as u64,
                span => (span * 1000.0) as u64,
            },
            sites: self.growers.iter().map(site).collect(),
        })
    }

    /// What the governor does.
    pub fn governor(&self, budget: f64) -> GovernorStep {
        let controller = &self.controller;
        GovernorStep {
            step: controller.step().name().to_owned(),
            cost_percent: controller.cost() * 100.0,
            budget_percent: budget * 100.0,
            traps_per_second: controller.traps_per_second(),
            sample_bytes: controller.step().sample_bytes(),
            windows: controller.windows(),
            open_percent: controller.step().open_share() * 100.0,
            open: controller.is_open(),
        }
    }

    /// As clients see it; `now` on the daemon's clock, for the series.
    pub fn view(
        &self,
        target: Option<&Target>,
        counters: &TargetCounters,
        budget: f64,
        now: f64,
        series: bool,
    ) -> TraceView {
        TraceView {
            active: true,
            by_hand: self.by_hand,
            started: time::rfc3339(self.began_at),
            duration_ms: self.began.elapsed().as_millis() as u64,
            scope: None,
            outstanding_bytes: self.totals.0,
            outstanding_blocks: self.totals.1,
            estimated: target.is_some_and(|target| target.sample_bytes() > 0),
            allocations: counters.allocations(),
            frees: counters.frees(),
            lost: lost(counters),
            sites: self.totals.2,
            table_bytes: 0,
            governor: self.governor(budget),
            evidence: self.evidence(),
            error: None,
            series: if series { points(&self.outstanding, now) } else { Vec::new() },
        }
    }
}

/// A history for clients: seconds before `now`, bytes.
pub fn points(history: &History, now: f64) -> Vec<Point> {
    let round = |seconds: f64| (seconds * 10.0).round() / 10.0;
    history.series().iter().map(|sample| (round(now - sample.time), sample.bytes)).collect()
}
