//! The kernel's own memory as a target of the daemon: the pid 0.
//!
//! | file | concern |
//! |---|---|
//! | [`decide`] | when it is traced, and what of it |
//! | [`control`] | what that may cost, and what is learned meanwhile |
//! | [`answers`] | what clients ask, and are told |
//!
//! A trace costs every allocation of the machine that it looks at. So without
//! being asked for, only the slab cache that grows is traced, or the kind of
//! memory, with a budget of its own.

mod answers;
mod control;
mod decide;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::active::Active;
use super::core::{Core, Told};
use super::subject::{Key, Subject};
use super::tracing::{KEPT_SITES, age_for, own_cpu, snapshot};
use crate::kernel::{KernelTrace, Settings, lines};
use crate::preflight::{self, Facts};
use crate::protocol::{ErrorCode, EventKind, Failure, KERNEL_PID, TraceView};
use crate::report::input::TargetSnapshot;
use crate::report::{self, model};
use crate::watch::kernel::Suspect;
use crate::watch::read::Identity;
pub(super) use answers::Wanted;

/// Stands for the kernel among the processes.
pub(super) const KERNEL: Key = (KERNEL_PID, 0);

/// The kernel's own memory.
#[derive(Debug)]
pub(super) struct KernelTarget {
    /// What is kept of it, as of a process.
    pub(super) subject: Subject,
    /// While it is under trace.
    trace: Option<KernelTrace>,
    /// What grows, as far as the watch knows.
    suspect: Option<Suspect>,
    /// While its programs are timed, and for how long they had run before.
    statistics: Option<(OwnedFd, u64)>,
}

impl Default for KernelTarget {
    fn default() -> Self {
        let identity = Identity {
            pid: KERNEL_PID,
            comm: "kernel".to_owned(),
            exe: preflight::release(),
            ..Identity::default()
        };
        let subject = Subject::new(Arc::new(identity));
        Self { subject, trace: None, suspect: None, statistics: None }
    }
}

impl KernelTarget {
    /// Whether it is under trace.
    pub(super) fn is_traced(&self) -> bool {
        self.trace.is_some()
    }

    /// Takes what the programs have announced.
    pub(super) fn poll(&mut self) {
        if let Some(trace) = &mut self.trace {
            trace.poll();
        }
    }

    /// The trace that goes on, as clients see it.
    fn trace_view(&self, budget: f64, now: f64, series: bool) -> Option<TraceView> {
        let (active, trace) = (self.subject.active.as_ref()?, self.trace.as_ref()?);
        let counters = trace.counters().unwrap_or_default();
        let view = active.view(None, &counters, budget, now, series);
        Some(TraceView { scope: Some(trace.settings().scope()), ..view })
    }
}

impl Core {
    /// What tracing the kernel may cost now, as a share of all CPUs: its budget,
    /// as far as the machine's has room for it beside leakd itself.
    fn kernel_budget(&self) -> f64 {
        let own = self.own_rate / super::tracing::cpus();
        let machine = self.config.budget.machine_percent.share() - own;
        self.config.kernel.budget_percent.share().min(machine).max(0.0)
    }

    /// Puts the kernel's memory under trace.
    fn begin_kernel(&mut self, settings: Settings, by_hand: bool) -> Result<(), Failure> {
        let cannot =
            |error: &dyn std::fmt::Display| Failure::new(ErrorCode::CannotTrace, error.to_string());
        Facts::gather().check_kernel().map_err(|error| cannot(&error))?;
        let scope = settings.scope();
        let before = own_cpu();
        let trace = KernelTrace::start(settings);
        // The verifier's work is done once: were it taken for what leakd goes on to
        // cost, a slow machine would have no budget left for what it was done for.
        self.own_cpu += own_cpu().saturating_sub(before);
        let trace = trace.map_err(|error| cannot(&error))?;
        let now = self.now();
        let kernel = &mut self.kernel;
        kernel.trace = Some(trace);
        let subject = &mut kernel.subject;
        subject.active = Some(Active::of_kernel(now, by_hand));
        subject.untraceable = None;
        subject.rest_until = None;
        subject.let_go = false;
        subject.touched = Instant::now();
        self.measure_kernel();
        self.time_kernel_programs();
        let message = format!("tracing the kernel's memory: {scope}");
        self.announce(KERNEL, EventKind::TraceBegan, message);
        Ok(())
    }

    /// Ends the trace and keeps what it found; `reason`: for people.
    fn finish_kernel(&mut self, reason: &str, error: Option<String>) {
        let (now, budget) = (self.now(), self.kernel_budget());
        let min_age = *self.config.trace.min_age;
        let view = self.kernel.trace_view(budget, now, true);
        let kernel = &mut self.kernel;
        kernel.statistics = None;
        let Some(active) = kernel.subject.active.take() else { return };
        let mut found = None;
        if let Some(mut trace) = kernel.trace.take() {
            // First: the machine does not pay for the look at the tables.
            if let Err(error) = trace.close_window() {
                tracing::warn!("the end of the kernel's trace: {error}");
            }
            match trace.snapshot(age_for(&active, min_age)) {
                Ok(target) => {
                    kernel.subject.report = build(target.clone(), min_age);
                    found = Some(target);
                }
                Err(error) => tracing::warn!("the last look at the kernel: {error}"),
            }
        }
        kernel.subject.last = view.map(|mut view| {
            view.active = false;
            view.governor.open = false;
            view.error = error;
            view
        });
        kernel.subject.touched = Instant::now();
        let message = format!("trace of the kernel's memory ended: {reason}");
        self.announce(KERNEL, EventKind::TraceEnded, message);
        super::memory::give_back();
        let Some(mut target) = found else { return };
        // Debug info may be large.
        let told = self.told.clone();
        tokio::task::spawn_blocking(move || {
            lines::add(&mut target);
            if let Some(report) = build(target, min_age) {
                // The core has ended: nobody wants to know.
                let _ = told.blocking_send(Told::Reported(KERNEL, report));
            }
            super::memory::give_back();
        });
    }
}

/// What is kept of a trace that has ended.
fn build(target: TargetSnapshot, min_age: Duration) -> Option<Box<model::Target>> {
    let settings =
        report::Settings { min_age_ns: min_age.as_nanos() as u64, top: Some(KEPT_SITES) };
    let found = snapshot(vec![target], SystemTime::now());
    report::build(found, &settings).targets.into_iter().next().map(Box::new)
}
