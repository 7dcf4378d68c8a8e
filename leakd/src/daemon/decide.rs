//! What is traced next, and what is held of each process.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::core::{Core, Tracing};
use super::subject::{Candidate, Key, Subject, choose};
use super::view::out_of_memory;
use crate::config::{Config, Mode, Subject as Named};
use crate::protocol::{EventKind, Verdict};
use crate::watch::Watched;
use crate::watch::growth::Trend;
use crate::watch::read::Identity;

/// What is known of a process that has ended is kept for so long ...
const KEPT_FOR: Duration = Duration::from_secs(6 * 3600);
/// ... and of so many.
const KEPT: usize = 256;
/// Where the governor lets probes in for a second at a time, a trace goes on for
/// so many of these ...
pub(super) const ENOUGH_WINDOWS: u64 = 20;
/// ... but for so many times its length at most.
pub(super) const MOST_LONGER: u32 = 10;

/// Whether the configuration lets a process be traced without being asked.
pub(super) fn is_allowed(config: &Config, identity: &Identity) -> bool {
    let named = Named {
        pid: identity.pid,
        comm: &identity.comm,
        exe: &identity.exe,
        uid: identity.uid,
        cgroup: &identity.group.path,
        unit: identity.group.unit.as_deref(),
    };
    let included = match config.mode {
        Mode::Targets => config.include.fits(&named),
        _ => config.include.is_empty() || config.include.fits(&named),
    };
    identity.pid != std::process::id() && included && !config.exclude.fits(&named)
}

/// How promising a process is; `None`: it is not to be traced.
fn promise(config: &Config, process: &Watched) -> Option<f64> {
    let growing = process.judgement.trend == Trend::Growing;
    let wanted = match config.mode {
        Mode::Off => false,
        Mode::Adaptive => growing,
        Mode::Targets | Mode::All => true,
    };
    if !wanted || !is_allowed(config, &process.identity) {
        return None;
    }
    // Those that grow come first, then those with most memory.
    let growth = if growing { process.judgement.slope.max(0.0) * 1e12 } else { 0.0 };
    Some(growth + process.bytes() as f64)
}

/// What the watch alone tells.
pub(super) fn verdict_of(trend: Trend) -> Verdict {
    match trend {
        Trend::Undetermined => Verdict::Undetermined,
        Trend::Slowing => Verdict::WarmUp,
        Trend::Stable => Verdict::Stable,
        Trend::Bounded => Verdict::CacheLike,
        Trend::Growing => Verdict::Growing,
    }
}

impl Core {
    /// After each look of the watch: verdicts, ends of traces, new traces.
    pub(super) fn decide(&mut self) {
        self.end_windows();
        self.update_verdicts();
        self.choose_next();
        self.decide_kernel();
        self.forget();
    }

    /// Ends traces that have lasted long enough or are not wanted any more.
    fn end_windows(&mut self) {
        let now = Instant::now();
        let config = self.config.trace.clone();
        let mode = self.config.mode;
        let active: Vec<Key> = self
            .subjects
            .iter()
            .filter(|(_, subject)| subject.active.is_some())
            .map(|(key, _)| *key)
            .collect();
        for key in active {
            let Some(subject) = self.subjects.get(&key) else { continue };
            let Some(active) = &subject.active else { continue };
            let found = !active.growers.is_empty();
            let unwanted = mode == Mode::Off || !is_allowed(&self.config, &subject.identity);
            let reason = match (active.by_hand, active.until) {
                (_, Some(until)) if until <= now => "its time is over",
                (true, _) => continue,
                (false, _) if unwanted => "it is not to be traced any more",
                (false, _) if mode == Mode::Targets => continue,
                (false, _) if active.began.elapsed() >= *config.window => {
                    // The governor's windows show a hundredth of that time.
                    if active.is_in_windows()
                        && active.controller.windows() < ENOUGH_WINDOWS
                        && active.began.elapsed() < *config.window * MOST_LONGER
                    {
                        continue;
                    }
                    "its window is over"
                }
                _ => continue,
            };
            let by_hand = active.by_hand;
            self.finish(key, reason, None);
            if let Some(subject) = self.subjects.get_mut(&key).filter(|_| !by_hand) {
                subject.rest(*config.rest, *config.max_rest, !found);
            }
        }
    }

    /// Takes over what the watch found.
    fn update_verdicts(&mut self) {
        let own = std::process::id();
        let watch = Arc::clone(&self.watch);
        let watch = watch.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut changes = Vec::new();
        let limits = &self.limits;
        let told = |process: &Watched| {
            let grows = process.judgement.trend == Trend::Growing;
            let out = if grows { out_of_memory(limits, process) } else { None };
            (process.judgement.slope, out)
        };
        for process in watch.processes().filter(|process| process.identity.pid != own) {
            let key = (process.identity.pid, process.identity.start_time);
            let trend = process.judgement.trend;
            let known = self.subjects.get_mut(&key);
            match known {
                None if trend == Trend::Growing => {
                    self.subjects.insert(key, Subject::new(Arc::clone(&process.identity)));
                    changes.push((key, trend, told(process)));
                }
                None => {}
                Some(subject) => {
                    if !Arc::ptr_eq(&subject.identity, &process.identity) {
                        subject.identity = Arc::clone(&process.identity);
                    }
                    subject.touched = Instant::now();
                    // Evidence from call sites outweighs the watch while it is
                    // fresh.
                    let evident =
                        subject.active.as_ref().is_some_and(|active| !active.growers.is_empty());
                    let verdict = verdict_of(trend);
                    if !evident && verdict != subject.verdict && verdict != Verdict::Undetermined {
                        changes.push((key, trend, told(process)));
                    }
                }
            }
        }
        drop(watch);
        for (key, trend, (slope, out)) in changes {
            let Some(subject) = self.subjects.get_mut(&key) else { continue };
            subject.verdict = verdict_of(trend);
            let who = format!("{} (pid {})", subject.identity.comm, key.0);
            let message = match subject.verdict {
                Verdict::Growing => {
                    let rate = crate::terminal::bytes((slope * 60.0).max(0.0) as u64);
                    let out =
                        out.map(|out| format!("; {}", crate::report::text::out_of_memory(&out)));
                    format!("{who} grows by {rate}/min{}", out.unwrap_or_default())
                }
                Verdict::WarmUp => format!("{who} grows less and less"),
                Verdict::CacheLike => format!("{who} goes up and down between bounds"),
                _ => format!("{who} does not grow any more"),
            };
            self.announce(key, EventKind::Verdict, message);
        }
    }

    /// Chooses the most promising, as far as there is room.
    fn choose_next(&mut self) {
        self.queue.clear();
        let suspects: HashSet<u32> = self.subjects.keys().map(|(pid, _)| *pid).collect();
        self.lock().detail(suspects);
        let room = (self.config.trace.max_targets.get() as usize).saturating_sub(self.active());
        if room == 0 || !matches!(self.tracing, Tracing::Available { .. }) {
            return;
        }
        let now = Instant::now();
        let candidates: Vec<Candidate> =
            self.lock()
                .processes()
                .filter_map(|process| {
                    let key = (process.identity.pid, process.identity.start_time);
                    let promise = promise(&self.config, process)?;
                    let free = self.subjects.get(&key).is_none_or(|subject| {
                        subject.is_free(now) && subject.untraceable.is_none()
                    });
                    free.then_some(Candidate { key, promise })
                })
                .collect();
        // Some may turn out untraceable: they leave their room to others.
        self.queue = choose(candidates, room * 4).into();
    }

    /// Traces the next one that was chosen, if there is room still.
    pub(super) fn begin_next(&mut self) {
        let Some(key) = self.queue.pop_front() else { return };
        if self.active() >= self.config.trace.max_targets.get() as usize {
            return self.queue.clear();
        }
        let free = |subject: &Subject| subject.is_free(Instant::now());
        if !self.subjects.get(&key).is_none_or(free) {
            return; // A client was faster.
        }
        let sample_bytes = self.config.trace.sample_bytes.get();
        if let Err(failure) = self.begin(key.0, Some(key.1), false, sample_bytes) {
            tracing::info!(pid = key.0, "not traced: {}", crate::terminal::safe(&failure.message));
            self.note_untraceable(key, failure.message);
        }
    }

    fn note_untraceable(&mut self, key: Key, message: String) {
        let identity = self.lock().process(key.0).map(|process| Arc::clone(&process.identity));
        let Some(identity) = identity.filter(|identity| identity.start_time == key.1) else {
            return;
        };
        let subject = self.subjects.entry(key).or_insert_with(|| Subject::new(identity));
        subject.untraceable = Some(message);
    }

    /// Forgets processes that have ended, the oldest first.
    fn forget(&mut self) {
        let gone: Vec<Key> = {
            let watch = self.lock();
            let is_there = |key: &Key| {
                watch.process(key.0).is_some_and(|one| one.identity.start_time == key.1)
            };
            self.subjects
                .iter()
                .filter(|(key, subject)| subject.active.is_none() && !is_there(key))
                .map(|(key, _)| *key)
                .collect()
        };
        let mut kept: Vec<(Instant, Key)> = Vec::new();
        for key in gone {
            let Some(subject) = self.subjects.get(&key) else { continue };
            let told = subject.report.is_some() || subject.last.is_some();
            if told && subject.touched.elapsed() < KEPT_FOR {
                kept.push((subject.touched, key));
            } else {
                self.subjects.remove(&key);
            }
        }
        kept.sort_unstable_by(|one, other| other.cmp(one));
        for (_, key) in kept.drain(KEPT.min(kept.len())..) {
            self.subjects.remove(&key);
        }
    }
}
