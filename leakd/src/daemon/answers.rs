//! Answers to what clients ask.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::core::{Core, Tracing};
use super::handle::Command;
use super::subject::Key;
use super::tracing::{age_for, cpus, snapshot};
use super::view;
use crate::config::{Count, LogLevel, Mode, Percent};
use crate::protocol::{
    Answer, Ask, Attached, Change, ConfigView, Done, ErrorCode, Failure, GovernorView, KERNEL_PID,
    MOST_SITES, OwnView, ProcessView, Sort, Stage, Status, Targets, TracingView, WatchView,
    Welcome, Which,
};
use crate::report::{self, model};
use crate::watch::read;

/// Processes in an answer, if the client does not say.
const DEFAULT_LIMIT: usize = 1000;
/// Call sites of each process in a report, if the client does not say.
const DEFAULT_TOP: usize = 100;
/// What is waited for, for names that are not there yet.
const NAMES_WAIT: Duration = Duration::from_secs(5);

pub(super) fn done(message: impl Into<String>) -> Answer {
    Answer::Done(Done { message: message.into() })
}

impl Core {
    /// Answers a question. A client that has gone does not matter.
    pub(super) fn answer(&mut self, command: Command) {
        let Command { ask, reply } = command;
        let answer = match ask {
            Ask::Report { which, top, min_age_ms } => {
                return self.report(which, top, min_age_ms, reply);
            }
            Ask::Scan { pid, start_time, max_pause_ms, top } => {
                return self.scan((pid, start_time), max_pause_ms, top, reply);
            }
            Ask::Status {} => Answer::Status(self.status()),
            Ask::Targets { pid, all, series, sort, limit } => {
                self.targets(pid, all, series, sort, limit.unwrap_or(DEFAULT_LIMIT))
            }
            Ask::Watch {} => {
                let standing = self.subjects.values().filter_map(|one| one.standing.clone());
                Answer::Watching(Welcome { standing: standing.collect() })
            }
            Ask::Attach { pid, start_time, for_ms, sample_bytes } => {
                let who = (pid, start_time);
                tokio::task::block_in_place(|| self.attach(who, for_ms, sample_bytes))
                    .unwrap_or_else(Answer::Error)
            }
            Ask::Kernel { for_ms, cache, kinds, min_bytes, max_bytes } => {
                let wanted = super::kernel::Wanted { cache, kinds, min_bytes, max_bytes };
                tokio::task::block_in_place(|| self.attach_kernel(wanted, for_ms))
                    .unwrap_or_else(Answer::Error)
            }
            Ask::Detach { pid: KERNEL_PID, .. } => {
                tokio::task::block_in_place(|| self.detach_kernel())
            }
            Ask::Detach { pid, start_time } => {
                tokio::task::block_in_place(|| self.detach(pid, start_time))
            }
            Ask::Set(change) => self.set(&change),
        };
        // Before the answer: who has it may ask for the status next.
        self.publish();
        let _ = reply.send(answer);
    }

    pub(super) fn status(&self) -> Status {
        let watch = self.lock();
        let pass = watch.last();
        let own = watch.process(std::process::id());
        let resident_bytes = own.map_or(0, |own| own.figures.resident_bytes);
        let kernel_memory = super::view::kernel_memory(watch.kernel());
        drop(watch);
        let (error, method, canary) = match &self.tracing {
            Tracing::Available { canary, method } => (None, Some(*method), Some(*canary)),
            Tracing::Unavailable(error) => (Some(error.clone()), None, None),
        };
        let suspects = self.subjects.values().filter(|subject| subject.verdict.urgency() > 0);
        let lost = self.subjects.values().filter_map(|one| one.active.as_ref()).map(|active| {
            let engine = self.trace.as_ref().map(crate::trace::Trace::engine);
            let counters =
                engine.and_then(|engine| engine.counters(engine.target(active.slot)?).ok());
            counters.map_or(0, |counters| view::lost(&counters))
        });
        let budget = &self.config.budget;
        Status {
            leakd: env!("CARGO_PKG_VERSION").to_owned(),
            host: crate::preflight::host(),
            kernel: crate::preflight::release(),
            cpus: cpus() as u32,
            started: report::time::rfc3339(self.began_at),
            uptime_ms: self.began.elapsed().as_millis() as u64,
            mode: self.config.mode.name().to_owned(),
            own: OwnView {
                pid: std::process::id(),
                resident_bytes,
                cpu_ms: super::tracing::own_cpu().as_millis() as u64,
                descriptors: read::descriptors(std::process::id()).unwrap_or(0),
            },
            watch: WatchView {
                processes: pass.processes,
                suspects: suspects.count(),
                passes: pass.number,
                interval_ms: self.interval.as_millis() as u64,
                pass_us: pass.cpu.as_micros() as u64,
                left_out: pass.left_out,
            },
            kernel_memory,
            kernel_tracing: self.kernel_tracing(),
            tracing: TracingView {
                available: error.is_none(),
                error,
                method: method.map(str::to_owned),
                bare_pair_ns: canary.map(|canary| canary.bare_pair_ns),
                traced_pair_ns: canary.map(|canary| canary.traced_pair_ns),
                emulated_trap_ns: canary.map(|canary| canary.emulated_trap_ns),
                single_stepped_trap_ns: canary.map(|canary| canary.single_stepped_trap_ns),
                targets: self.active(),
                max_targets: self.config.trace.max_targets.get() as usize,
                lost: lost.sum(),
            },
            governor: GovernorView {
                budget_target_percent: budget.target_percent.get(),
                budget_machine_percent: budget.machine_percent.get(),
                cost_machine_percent: self.machine_cost * 100.0,
                steps_down: self.steps.0,
                steps_up: self.steps.1,
            },
            config: ConfigView {
                files: self.files.iter().map(|path| path.display().to_string()).collect(),
                error: self.config_error.clone(),
                changed: self.changed.clone(),
            },
            // Told when it is asked for.
            age_ms: 0,
            clients: 0,
        }
    }

    fn targets(
        &self,
        pid: Option<u32>,
        all: bool,
        series: bool,
        sort: Sort,
        limit: usize,
    ) -> Answer {
        let mut processes = self.views(pid, all || pid.is_some(), series);
        if let Some(pid) = pid.filter(|_| processes.is_empty()) {
            return Answer::failed(ErrorCode::NotFound, format!("no process {pid} is watched"));
        }
        let cost = |view: &ProcessView| view.cost_percent().unwrap_or(-1.0);
        processes.sort_by(|one, other| {
            match sort {
                Sort::Growth => {
                    other.growth.bytes_per_second.total_cmp(&one.growth.bytes_per_second)
                }
                Sort::Outstanding => other.outstanding_bytes().cmp(&one.outstanding_bytes()),
                Sort::Cost => cost(other).total_cmp(&cost(one)),
                Sort::Memory => other.taken_bytes().cmp(&one.taken_bytes()),
                Sort::Pid => std::cmp::Ordering::Equal,
            }
            .then_with(|| one.pid.cmp(&other.pid))
        });
        let omitted = processes.len().saturating_sub(limit);
        processes.truncate(limit);
        Answer::Targets(Targets { processes, omitted })
    }

    /// Puts a process under trace for a client.
    fn attach(
        &mut self,
        (pid, start_time): (u32, Option<u64>),
        for_ms: Option<u64>,
        sample_bytes: Option<u64>,
    ) -> Result<Answer, Failure> {
        if pid == KERNEL_PID {
            let message = "the kernel is no process: `leakctl kernel` traces its memory";
            return Err(Failure::new(ErrorCode::BadRequest, message));
        }
        let running = |one: (&Key, &super::subject::Subject)| {
            (is_it(one.0, pid, start_time) && one.1.active.is_some()).then_some(*one.0)
        };
        let known = self.subjects.iter().find_map(running);
        let key = match known {
            Some(key) => key,
            None => {
                self.make_room()?;
                let sample = sample_bytes.unwrap_or(self.config.trace.sample_bytes.get());
                self.begin(pid, start_time, true, sample)?
            }
        };
        let until = for_ms.and_then(|span| Instant::now().checked_add(Duration::from_millis(span)));
        let subject = self.subjects.get_mut(&key);
        let comm = subject.as_ref().map(|one| one.identity.comm.clone()).unwrap_or_default();
        let already = known.is_some();
        let mut attached =
            Attached { pid, start_time: key.1, comm, already, ..Attached::default() };
        if let Some(active) = subject.and_then(|subject| subject.active.as_mut()) {
            active.by_hand = true;
            active.until = until;
            let engine = self.trace.as_ref().map(crate::trace::Trace::engine);
            if let Some(target) = engine.and_then(|engine| engine.target(active.slot)) {
                let functions = target.probes().functions();
                attached.functions = functions.len();
                attached.modules = functions.iter().map(|one| one.module.clone()).collect();
                attached.modules.sort();
                attached.modules.dedup();
                attached.single_stepped = functions
                    .iter()
                    .filter(|one| one.single_stepped.is_some())
                    .map(|one| one.symbol.clone())
                    .collect();
            }
        }
        Ok(Answer::Attached(attached))
    }

    /// What was asked for by hand goes before what was not.
    fn make_room(&mut self) -> Result<(), Failure> {
        let most = self.config.trace.max_targets.get() as usize;
        if self.active() < most {
            return Ok(());
        }
        let by_itself = self.subjects.iter().filter_map(|(key, subject)| {
            let active = subject.active.as_ref().filter(|active| !active.by_hand)?;
            Some((active.growers.len(), std::cmp::Reverse(active.began), *key))
        });
        let Some((_, _, key)) = by_itself.min() else {
            return Err(Failure {
                code: ErrorCode::Busy,
                message: format!("{most} processes are traced already: detach one first"),
            });
        };
        self.finish(key, "another was asked for", None);
        let config = &self.config.trace;
        if let Some(subject) = self.subjects.get_mut(&key) {
            subject.rest(*config.rest, *config.max_rest, false);
        }
        Ok(())
    }

    fn detach(&mut self, pid: u32, start_time: Option<u64>) -> Answer {
        let wanted = |key: &Key| is_it(key, pid, start_time);
        let found = self.subjects.iter().find(|(key, one)| wanted(key) && one.active.is_some());
        let Some((&key, subject)) = found else {
            return Answer::failed(
                ErrorCode::NotFound,
                format!("process {pid} is not under trace"),
            );
        };
        let comm = subject.identity.comm.clone();
        self.finish(key, "somebody detached from it", None);
        if let Some(subject) = self.subjects.get_mut(&key) {
            subject.let_go = true;
        }
        done(format!("detached from {comm} (pid {pid})"))
    }

    /// Changes settings, all or none.
    fn set(&mut self, change: &Change) -> Answer {
        let mut config = self.config.clone();
        let mut changed = Vec::new();
        let result: Result<(), String> = (|| {
            if let Some(mode) = &change.mode {
                let modes = "adaptive, targets, all or off";
                config.mode = Mode::named(mode).ok_or(format!("`mode` is {modes}"))?;
                changed.push("mode");
            }
            if let Some(level) = &change.log_level {
                let levels = "error, warn, info, debug or trace";
                config.log_level =
                    LogLevel::named(level).ok_or(format!("`log_level` is {levels}"))?;
                changed.push("log_level");
            }
            if let Some(percent) = change.budget_target_percent {
                config.budget.target_percent = Percent::checked(percent)?;
                changed.push("budget.target_percent");
            }
            if let Some(percent) = change.budget_machine_percent {
                config.budget.machine_percent = Percent::checked(percent)?;
                changed.push("budget.machine_percent");
            }
            if let Some(most) = change.max_targets {
                config.trace.max_targets = Count::checked(most as u64)?;
                changed.push("trace.max_targets");
            }
            Ok(())
        })();
        if let Err(message) = result {
            return Answer::failed(ErrorCode::BadRequest, message);
        }
        if changed.is_empty() {
            return Answer::failed(ErrorCode::BadRequest, "nothing to set was named");
        }
        self.config = config;
        for name in &changed {
            if !self.changed.iter().any(|known| known == name) {
                self.changed.push((*name).to_owned());
            }
        }
        tracing::info!("set by a client: {}", changed.join(", "));
        self.configured();
        done(format!("set: {}", changed.join(", ")))
    }

    /// Makes a report; names are looked up on a thread of its own.
    fn report(
        &mut self,
        which: Which,
        top: Option<usize>,
        min_age_ms: Option<u64>,
        reply: oneshot::Sender<Answer>,
    ) {
        let Ok(permit) = Arc::clone(&self.reports).try_acquire_owned() else {
            let _ = reply
                .send(Answer::failed(ErrorCode::Busy, "other reports are being made: try again"));
            return;
        };
        let min_age = min_age_ms.map_or(*self.config.trace.min_age, Duration::from_millis);
        let fits = |key: &Key, subject: &super::subject::Subject| {
            which.all
                || which.pid.is_some_and(|pid| is_it(key, pid, which.start_time))
                || (which.unit.is_some() && which.unit == subject.identity.group.unit)
        };
        let mut kept: Vec<model::Target> = Vec::new();
        let mut fresh = Vec::new();
        let keys: Vec<Key> =
            self.subjects.iter().filter(|(key, one)| fits(key, one)).map(|(key, _)| *key).collect();
        tokio::task::block_in_place(|| {
            for key in keys {
                let Some(subject) = self.subjects.get(&key) else { continue };
                match (&subject.active, &mut self.trace) {
                    (Some(active), Some(trace)) => {
                        match trace.look(active.slot, age_for(active, min_age), active.history()) {
                            Ok(Some(prepared)) => fresh.push(prepared),
                            Ok(None) => {}
                            Err(error) => tracing::warn!("looking at process {}: {error}", key.0),
                        }
                    }
                    _ => kept.extend(subject.report.as_deref().cloned()),
                }
            }
        });
        let mut kernel = None;
        if which.all || which.pid == Some(KERNEL_PID) {
            kernel = tokio::task::block_in_place(|| self.look_at_kernel(min_age));
            if kernel.is_none() {
                kept.extend(self.kernel.subject.report.as_deref().cloned());
            }
        }
        if fresh.is_empty() && kernel.is_none() && kept.is_empty() && !which.all {
            let what = match (&which.pid, &which.unit) {
                (Some(KERNEL_PID), _) => {
                    let message = "the kernel's memory is not and was not under trace: \
                                   `leakctl kernel` traces it";
                    let _ = reply.send(Answer::failed(ErrorCode::NotFound, message));
                    return;
                }
                (Some(pid), _) => format!("process {pid} is not and was not under trace"),
                (_, Some(unit)) => format!("no process of {unit} is or was under trace"),
                _ => "nothing is or was under trace".to_owned(),
            };
            let hint = "`leakctl attach PID` traces one";
            let _ = reply.send(Answer::failed(ErrorCode::NotFound, format!("{what}: {hint}")));
            return;
        }
        let top = top.unwrap_or(DEFAULT_TOP).min(MOST_SITES);
        let symbolizer = self.trace.as_ref().map(|trace| Arc::clone(trace.symbolizer()));
        let began_at = self.began_at;
        tokio::task::spawn_blocking(move || {
            let mut targets: Vec<_> = match &symbolizer {
                Some(symbolizer) => {
                    fresh.into_iter().map(|one| one.name(symbolizer, NAMES_WAIT)).collect()
                }
                None => Vec::new(),
            };
            if let Some(mut kernel) = kernel {
                crate::kernel::lines::add(&mut kernel);
                targets.push(kernel);
            }
            let settings =
                report::Settings { min_age_ns: min_age.as_nanos() as u64, top: Some(top) };
            let mut report = report::build(snapshot(targets, began_at), &settings);
            for mut target in kept {
                for site in target.sites.drain(top.min(target.sites.len())..) {
                    target.omitted.sites += 1;
                    target.omitted.bytes += site.outstanding_bytes;
                    target.omitted.blocks += site.outstanding_blocks;
                }
                report.targets.push(target);
            }
            drop(permit);
            let _ = reply.send(Answer::Report { report });
        });
    }
}

/// Whether a client means this process; without a start time, whoever has the
/// pid.
fn is_it(key: &Key, pid: u32, start_time: Option<u64>) -> bool {
    key.0 == pid && start_time.is_none_or(|start_time| key.1 == start_time)
}

/// What is done with a process.
pub(super) fn stage(
    subject: Option<&super::subject::Subject>,
    allowed: bool,
    growing: bool,
) -> Stage {
    match subject {
        Some(subject) if subject.active.is_some() => Stage::Traced,
        Some(subject) if subject.let_go => Stage::Excluded,
        _ if !allowed => Stage::Excluded,
        Some(subject) if subject.untraceable.is_some() => Stage::Untraceable,
        Some(subject) if !subject.is_free(Instant::now()) => Stage::Resting,
        _ if growing => Stage::Suspect,
        Some(subject) if subject.last.is_some() => Stage::Resting,
        _ => Stage::Watched,
    }
}
