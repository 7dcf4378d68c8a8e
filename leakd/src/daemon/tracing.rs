//! How traces begin, go on and end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use super::active::{Active, ClosedWindow};
use super::core::{Core, Told, Tracing};
use super::memory;
use super::subject::{Key, Subject};
use crate::bpf::features::ProbeMethod;
use crate::bpf::program_info;
use crate::canary;
use crate::engine::target::Ended;
use crate::engine::window::Tables;
use crate::engine::{Engine, Settings};
use crate::governor::{self, Decision, Prices, Step};
use crate::preflight::{self, Facts};
use crate::protocol::{ErrorCode, EventKind, Failure, Verdict};
use crate::report::input::Snapshot;
use crate::report::{self, model};
use crate::symbol::{CodeAddress, Frame};
use crate::trace::{Prepared, Trace};
use crate::watch::Watched;
use crate::watch::growth::Trend;
use crate::watch::read;

/// Without a target, the engine goes after so long: its rings are polled.
const IDLE: Duration = Duration::from_secs(30);
/// What is waited for, for names in the report of a trace that has ended.
const NAMES_WAIT: Duration = Duration::from_secs(20);
/// The same, for the places of call sites that grow, of all targets together:
/// what is not known by then comes with the next look.
const PLACE_WAIT: Duration = Duration::from_millis(200);
/// What an attach waits for unwind tables: nothing else goes on meanwhile.
const TABLES_WAIT: Duration = Duration::from_millis(100);
/// Weight of the last control period in leakd's own cost: some 30 seconds.
const OWN_WEIGHT: f64 = 0.03;
/// Call sites that are kept of a trace that has ended.
pub(super) const KEPT_SITES: usize = 50;

/// Sends the canary ahead. The engine goes again: it is started when there is
/// something to trace.
pub(super) fn send_canary() -> Tracing {
    let tried = Facts::gather().check().map_err(|error| error.to_string()).and_then(|()| {
        let mut engine = Engine::start(Settings::default()).map_err(|error| error.to_string())?;
        let canary = canary::check_and_time(&mut engine).map_err(|error| error.to_string())?;
        let method = match engine.method() {
            ProbeMethod::Session => "session",
            ProbeMethod::Multi => "multi",
            ProbeMethod::Perf => "perf",
        };
        Ok(Tracing::Available { canary, method })
    });
    match &tried {
        Ok(Tracing::Available { canary, method }) => tracing::info!(
            method,
            bare_pair_ns = canary.bare_pair_ns,
            traced_pair_ns = canary.traced_pair_ns,
            emulated_trap_ns = canary.emulated_trap_ns,
            single_stepped_trap_ns = canary.single_stepped_trap_ns,
            "the canary was seen exactly"
        ),
        Ok(Tracing::Unavailable(_)) => {}
        Err(error) => tracing::error!("nothing can be traced, processes are only watched: {error}"),
    }
    memory::give_back();
    tried.unwrap_or_else(Tracing::Unavailable)
}

/// CPU time that the daemon has taken.
pub(super) fn own_cpu() -> Duration {
    getrusage(UsageWho::RUSAGE_SELF).map_or(Duration::ZERO, |usage| {
        let microseconds =
            usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        Duration::from_micros(u64::try_from(microseconds).unwrap_or(0))
    })
}

impl Core {
    /// Processes under trace.
    pub(super) fn active(&self) -> usize {
        self.subjects.values().filter(|subject| subject.active.is_some()).count()
    }

    fn start_engine(&mut self) -> Result<(), Failure> {
        if let Tracing::Unavailable(error) = &self.tracing {
            return Err(Failure::new(ErrorCode::CannotTrace, error.clone()));
        }
        if self.trace.is_none() {
            let settings = Settings {
                quota: self.config.trace.max_blocks.get() as u32,
                tables_wait: TABLES_WAIT,
                ..Settings::default()
            };
            let engine = Engine::start(settings)
                .map_err(|error| Failure::new(ErrorCode::CannotTrace, error.to_string()))?;
            self.trace = Some(Trace::new(engine));
        }
        Ok(())
    }

    /// Puts a process under trace; with a `start_time`, only the one that
    /// started then.
    pub(super) fn begin(
        &mut self,
        pid: u32,
        start_time: Option<u64>,
        by_hand: bool,
        sample_bytes: u64,
    ) -> Result<Key, Failure> {
        let cannot =
            |error: &dyn std::fmt::Display| Failure::new(ErrorCode::CannotTrace, error.to_string());
        // What is wrong with a pid is told before anything is started.
        let info = crate::process::inspect(pid).map_err(|error| match error {
            crate::process::ProcessError::NotFound(_) => {
                Failure::new(ErrorCode::NotFound, error.to_string())
            }
            other => cannot(&other),
        })?;
        let another = |found: u64| start_time.is_some_and(|wanted| wanted != found);
        let reused = || {
            let message = format!("the process that had the pid {pid} has ended: it is another's");
            Failure::new(ErrorCode::NotFound, message)
        };
        if another(info.start_time) {
            return Err(reused());
        }
        self.start_engine()?;
        let now = self.now();
        let Tracing::Available { canary, .. } = &self.tracing else {
            return Err(Failure::new(ErrorCode::Internal, "no canary"));
        };
        let prices = Prices::of(canary);
        let Some(trace) = &mut self.trace else {
            return Err(Failure::new(ErrorCode::Internal, "no engine"));
        };
        let slot = trace
            .engine_mut()
            .attach_adjustable(pid, sample_bytes)
            .map_err(|error| cannot(&error))?;
        let Some(target) = trace.engine().target(slot) else {
            return Err(Failure::new(ErrorCode::Internal, "no target"));
        };
        let found = target.info().start_time;
        if another(found) {
            // Since it was looked at above.
            trace.engine_mut().detach(slot);
            return Err(reused());
        }
        let key = (pid, found);
        let active = Active::new(target, prices, now, by_hand);
        let known = self.lock().process(pid).map(|process| Arc::clone(&process.identity));
        let identity = known
            .filter(|known| known.start_time == found)
            .or_else(|| read::identify(pid, "", 0).map(Arc::new));
        let Some(identity) = identity else {
            if let Some(trace) = &mut self.trace {
                trace.engine_mut().detach(slot);
            }
            return Err(Failure::new(ErrorCode::NotFound, format!("process {pid} has ended")));
        };
        let subject = self.subjects.entry(key).or_insert_with(|| Subject::new(identity));
        subject.active = Some(active);
        subject.untraceable = None;
        subject.rest_until = None;
        subject.let_go = false;
        subject.touched = Instant::now();
        let comm = subject.identity.comm.clone();
        self.measure(key);
        // Of others, a control period is under way.
        if self.active() == 1 {
            self.time_programs();
        }
        self.announce(key, EventKind::TraceBegan, format!("tracing {comm} (pid {pid})"));
        Ok(key)
    }

    /// Ends a trace and keeps what it found; `reason`: for people.
    pub(super) fn finish(&mut self, key: Key, reason: &str, error: Option<String>) {
        let now = self.now();
        let budget = self.config.budget.target_percent.share();
        let min_age = *self.config.trace.min_age;
        let Some(subject) = self.subjects.get_mut(&key) else { return };
        let Some(active) = subject.active.take() else { return };
        let mut prepared = None;
        if let Some(trace) = &mut self.trace {
            let exited = trace
                .engine()
                .target(active.slot)
                .is_none_or(|target| target.ended() == Ended::Exited);
            // What a process left behind at its end is old enough.
            let age = if exited { Duration::ZERO } else { age_for(&active, min_age) };
            match trace.look(active.slot, age, active.history()) {
                Ok(look) => prepared = look,
                Err(error) => tracing::warn!("the last look at process {}: {error}", key.0),
            }
            let target = trace.engine().target(active.slot);
            let counters =
                target.and_then(|target| trace.engine().counters(target).ok()).unwrap_or_default();
            let mut view = active.view(target, &counters, budget, now, true);
            view.active = false;
            view.governor.open = false;
            view.error = error;
            subject.last = Some(view);
            trace.engine_mut().detach(active.slot);
        }
        subject.touched = Instant::now();
        let comm = subject.identity.comm.clone();
        if let Some(prepared) = prepared {
            self.keep_report(key, prepared.detached(), min_age);
        }
        self.announce(
            key,
            EventKind::TraceEnded,
            format!("trace of {comm} (pid {}) ended: {reason}", key.0),
        );
        if self.active() == 0 {
            self.idle_since = Instant::now();
        }
    }

    /// Names what a trace found, on a thread of its own.
    fn keep_report(&self, key: Key, prepared: Prepared, min_age: Duration) {
        let Some(trace) = &self.trace else { return };
        let (symbolizer, told) = (Arc::clone(trace.symbolizer()), self.told.clone());
        tokio::task::spawn_blocking(move || {
            let target = prepared.name(&symbolizer, NAMES_WAIT);
            let snapshot = snapshot(vec![target], SystemTime::now());
            let settings =
                report::Settings { min_age_ns: min_age.as_nanos() as u64, top: Some(KEPT_SITES) };
            let report = report::build(snapshot, &settings);
            if let Some(target) = report.targets.into_iter().next() {
                // The core has ended: nobody wants to know.
                let _ = told.blocking_send(Told::Reported(key, Box::new(target)));
            }
            memory::give_back();
        });
    }

    /// Finds out which targets have ended; lets an idle engine go.
    pub(super) fn tick(&mut self) {
        self.kernel.poll();
        let Some(trace) = &mut self.trace else { return };
        trace.tick();
        let ended: Vec<Key> = self
            .subjects
            .iter()
            .filter(|(_, subject)| {
                subject.active.as_ref().is_some_and(|active| {
                    let target = trace.engine().target(active.slot);
                    target.is_none_or(|target| target.ended() == Ended::Exited)
                })
            })
            .map(|(key, _)| *key)
            .collect();
        tokio::task::block_in_place(|| {
            for key in ended {
                self.finish(key, "the process has ended", None);
            }
            if self.active() == 0 && self.idle_since.elapsed() >= IDLE {
                self.trace = None;
                memory::give_back();
            }
        });
    }

    /// The end of a control period of the governor.
    pub(super) fn control(&mut self) {
        let own = own_cpu();
        let spent = own.saturating_sub(self.own_cpu).as_secs_f64();
        self.own_cpu = own;
        // Tables and names of a new target come at once: not every burst is to
        // make others give way.
        self.own_rate += (spent / governor::PERIOD.as_secs_f64() - self.own_rate) * OWN_WEIGHT;
        let own_rate = self.own_rate;
        let cpus = cpus();
        let budget = self.config.budget.target_percent.share();
        let keys: Vec<Key> =
            self.subjects.iter().filter(|s| s.1.active.is_some()).map(|s| *s.0).collect();
        let costs: Vec<(f64, f64)> = keys
            .iter()
            .filter_map(|key| self.subjects.get(key)?.active.as_ref())
            .map(|active| (active.controller.cost(), active.controller.cost_of_cpu()))
            .collect();
        let spent: f64 = costs.iter().map(|cost| cost.1).sum();
        let of_kernel = self.control_kernel();
        self.machine_cost = (spent + of_kernel + own_rate) / cpus;
        let room = self.config.budget.machine_percent.share() * cpus - of_kernel - own_rate;
        let shares = governor::shares(&costs, budget, room);
        self.budgets = keys.iter().copied().zip(shares.iter().copied()).collect();
        let now = self.now();
        let measured: Vec<(Key, f64)> =
            keys.into_iter().zip(shares).filter(|(key, _)| self.measure(*key)).collect();
        let timed = self.program_time();
        for (key, share) in measured {
            let Some(active) = self.subjects.get_mut(&key).and_then(|one| one.active.as_mut())
            else {
                continue;
            };
            let (before, was_open) = (active.controller.step(), active.controller.is_open());
            let decision = active.control(now, timed, share);
            self.obey(key, decision, before, was_open);
        }
        self.time_programs();
    }

    /// Reads what the governor measures a target by; false: it has ended.
    fn measure(&mut self, key: Key) -> bool {
        let Some(trace) = &self.trace else { return false };
        let active = self.subjects.get_mut(&key).and_then(|one| one.active.as_mut());
        let Some(active) = active else { return false };
        let Some(target) = trace.engine().target(active.slot) else { return false };
        match (trace.engine().counters(target), target.cpu_time()) {
            (Ok(counters), Ok(cpu)) => {
                active.measure(counters, cpu);
                true
            }
            _ => false,
        }
    }

    /// For how many nanoseconds the programs ran in the last control period, if
    /// that was measured, and for how many they would have in the canary.
    fn program_time(&mut self) -> Option<(f64, f64)> {
        let (_, before) = self.statistics.take()?;
        let Tracing::Available { canary, .. } = &self.tracing else { return None };
        let prices = Prices::of_programs(canary)?;
        let now = self.trace.as_ref()?.engine().program_time_ns().ok()?;
        let active = self.subjects.values().filter_map(|subject| subject.active.as_ref());
        let expected = active.map(|active| active.expected_ns(&prices)).sum();
        Some((now.saturating_sub(before) as f64, expected))
    }

    /// Has the kernel time the programs in the next control period, if any target
    /// is to be timed.
    fn time_programs(&mut self) {
        let mut active = self.subjects.values().filter_map(|subject| subject.active.as_ref());
        if !active.any(Active::is_to_be_timed) {
            return;
        }
        let Some(trace) = &self.trace else { return };
        // Where there are no statistics (before Linux 5.8), the canary's prices
        // are used as they are.
        self.statistics = program_info::take_statistics()
            .and_then(|statistics| Ok((statistics, trace.engine().program_time_ns()?)))
            .ok();
    }

    /// How fast a process grows, in bytes a second, if the watch sees that it
    /// does.
    fn growth(&self, key: Key) -> Option<f64> {
        let watch = self.lock();
        let process = watch.process(key.0).filter(|one| one.identity.start_time == key.1)?;
        let judgement = &process.judgement;
        (judgement.trend == Trend::Growing).then_some(judgement.slope)
    }

    /// Does what the governor decided.
    fn obey(&mut self, key: Key, decision: Decision, before: Step, was_open: bool) {
        let least_slope = super::core::judge(&self.config).least_slope;
        let now = self.now();
        let growth = self.growth(key);
        let (Some(trace), Some(subject)) = (&mut self.trace, self.subjects.get_mut(&key)) else {
            return;
        };
        let Some(active) = subject.active.as_mut() else { return };
        let slot = active.slot;
        if decision.step == Step::Detached {
            let message = format!(
                "recording it would cost {:.1} % of its time at the least that tells anything",
                active.controller.least_cost() * 100.0
            );
            self.steps.0 += 1;
            self.finish(key, "over budget", Some(message.clone()));
            if let Some(subject) = self.subjects.get_mut(&key) {
                let config = &self.config.trace;
                subject.rest(*config.rest, *config.max_rest, true);
            }
            return;
        }
        let engine = trace.engine_mut();
        let sample_bytes = decision.step.sample_bytes();
        if sample_bytes != before.sample_bytes()
            && let Err(error) = engine.set_sample_bytes(slot, sample_bytes)
        {
            tracing::warn!("sampling of process {}: {error}", key.0);
        }
        if was_open && !decision.open {
            // First: the target does not pay for the look at its tables.
            let closing = engine.close_window(slot);
            let target = engine.target(slot);
            let lasted = target.map(|target| target.windows().last_for());
            let look = target.map(|target| engine.look(target, Some(Duration::ZERO)));
            let none = HashMap::new();
            if let (Some(lasted), Some(Ok(look))) = (lasted, look) {
                active.controller.window_lasted(lasted.as_secs_f64());
                let nanoseconds = |duration: Duration| duration.as_nanos() as u64;
                let window = ClosedWindow {
                    begin_ns: look.now_ns.saturating_sub(nanoseconds(lasted)),
                    end_ns: look.now_ns.saturating_sub(nanoseconds(closing)),
                    totals: &look.sites,
                    blocks: look.blocks.as_ref().unwrap_or(&none),
                };
                active.learn_window(now, &window, growth, least_slope);
            }
        } else if !was_open && decision.open {
            // Blocks stay known from one window to the next, but in between no
            // end is seen: what is to be exact begins anew.
            let keep = is_windows(before) && is_windows(decision.step);
            let tables = match keep && !active.is_to_begin_anew() {
                true => Tables::Kept,
                false => Tables::Empty,
            };
            if tables == Tables::Empty {
                active.begin_anew();
            }
            if let Err(error) = engine.open_window(slot, tables) {
                let message = error.to_string();
                self.finish(key, "its probes cannot be put in again", Some(message));
                return;
            }
        }
        if decision.changed {
            let down = decision.step.is_below(before);
            if down {
                self.steps.0 += 1;
            } else {
                self.steps.1 += 1;
            }
            let message =
                self.subjects.get(&key).and_then(|one| one.active.as_ref()).map(|active| {
                    format!(
                        "{} ({}, then {}): tracing cost {:.1} % of its time",
                        if down { "less is recorded" } else { "more is recorded" },
                        before.name(),
                        decision.step.name(),
                        active.controller.cost() * 100.0
                    )
                });
            self.announce(key, EventKind::Governor, message.unwrap_or_default());
        }
    }

    /// What processes have taken, in bytes, as the watch saw it last.
    fn memory_of(&self, keys: &[Key]) -> HashMap<Key, u64> {
        let watch = self.lock();
        let is_it = |key: &Key, one: &Watched| one.identity.start_time == key.1;
        let of = |key: &Key| watch.process(key.0).filter(|one| is_it(key, one));
        keys.iter().filter_map(|key| Some((*key, of(key)?.bytes()))).collect()
    }

    /// Looks at the call sites of all targets, and judges.
    pub(super) fn learn(&mut self) {
        self.learn_kernel();
        let least_slope = super::core::judge(&self.config).least_slope;
        let now = self.now();
        let keys: Vec<Key> = self.subjects.keys().copied().collect();
        let mut patience = PLACE_WAIT;
        let memory = self.memory_of(&keys);
        for key in keys {
            let Some(trace) = &self.trace else { return };
            let Some(subject) = self.subjects.get_mut(&key) else { continue };
            let Some(active) = subject.active.as_mut() else { continue };
            let Some(target) = trace.engine().target(active.slot) else { continue };
            if !is_windows(active.controller.step()) {
                let ages = active.are_blocks_due(now).then_some(Duration::ZERO);
                match trace.engine().look(target, ages) {
                    Ok(look) => {
                        active.learn(now, target, &look, memory.get(&key).copied(), least_slope);
                    }
                    Err(error) => {
                        tracing::warn!("looking at process {}: {error}", key.0);
                        continue;
                    }
                }
            }
            name_growers(active, trace, &mut patience);
            let found = active.verdict();
            let names = active.evidence().map(|evidence| evidence.sites);
            let place = names.and_then(|sites| sites.into_iter().next());
            let known = subject.standing.as_ref().and_then(|event| event.evidence.as_ref());
            let news = found.filter(|found| subject.verdict != *found || known.is_none());
            if let (Some(site), Some(verdict)) = (place, news) {
                subject.verdict = verdict;
                let does = match verdict {
                    Verdict::Leak => "leaks memory",
                    _ => "holds more and more memory",
                };
                let message = format!(
                    "{} (pid {}) {does}: {}/min from {}",
                    subject.identity.comm,
                    key.0,
                    crate::terminal::bytes((site.bytes_per_second * 60.0) as u64),
                    if site.place.is_empty() { &site.id } else { &site.place }
                );
                self.announce(key, EventKind::Verdict, message);
            }
        }
    }
}

/// The minimum age of blocks in a report: no more than a trace can tell that
/// began not long ago.
pub(super) fn age_for(active: &Active, min_age: Duration) -> Duration {
    min_age.min(active.began.elapsed() / 3)
}

pub(super) fn is_windows(step: Step) -> bool {
    matches!(step, Step::Windows { .. })
}

/// Looks up the places of call sites that grow; waits as long as there is
/// patience.
fn name_growers(active: &mut Active, trace: &Trace, patience: &mut Duration) {
    let Some(target) = trace.engine().target(active.slot) else { return };
    active.places.retain(|site, _| active.growers.iter().any(|grower| grower.site == *site));
    for grower in &active.growers {
        let known = active.places.get(&grower.site);
        if known.is_some_and(|place| !place.is_empty() && !place.starts_with("0x")) {
            continue;
        }
        let addresses: Vec<CodeAddress> = target.code_addresses(grower.site).collect();
        if addresses.is_empty() {
            continue;
        }
        let began = Instant::now();
        let frames = trace.symbolizer().resolve(&addresses, *patience);
        *patience = patience.saturating_sub(began.elapsed());
        active.places.insert(grower.site, place(frames.concat()));
    }
}

/// The frame to look at first: the innermost that does not only work on behalf
/// of its caller.
pub(super) fn place(frames: Vec<Frame>) -> String {
    let frames: Vec<model::Frame> = frames.into_iter().map(report::build::model_frame).collect();
    let named = || frames.iter().filter(|frame| frame.function.is_some());
    let own = named().find(|frame| !report::text::is_library(frame)).or_else(|| named().next());
    let Some(frame) = own else {
        return frames.first().map_or_else(String::new, |frame| frame.address.clone());
    };
    let function = frame.function.as_deref().unwrap_or_default();
    match (&frame.file, frame.line, &frame.module) {
        (Some(file), Some(line), _) => format!("{function} {file}:{line}"),
        (_, _, Some(module)) => format!("{function} in {module}"),
        _ => function.to_owned(),
    }
}

/// One look at some targets, for the report.
pub(super) fn snapshot(
    targets: Vec<report::input::TargetSnapshot>,
    started: SystemTime,
) -> Snapshot {
    Snapshot {
        started,
        ended: SystemTime::now(),
        host: preflight::host(),
        kernel: preflight::release(),
        targets,
    }
}

/// CPUs that are online.
pub(super) fn cpus() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64)
}
