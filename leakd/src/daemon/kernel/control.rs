//! What tracing the kernel's memory may cost, and what is learned meanwhile.
//!
//! Events are counted by the programs, those that are left out as well; for how
//! long a program runs is measured now and again. Both together are what it
//! costs the machine, as a share of all CPUs.

use std::collections::HashMap;

use super::super::active::{Active, ClosedWindow};
use super::super::core::{Core, judge};
use super::super::tracing::{cpus, is_windows, place};
use super::KERNEL;
use crate::bpf::program_info;
use crate::engine::window::Tables;
use crate::governor::{Decision, Prices, Step};
use crate::kernel::{KernelError, KernelTrace};
use crate::protocol::{EventKind, Verdict};
use crate::terminal;

impl Core {
    /// The end of a control period of the governor. Gives how many CPUs the
    /// trace costs.
    pub(in super::super) fn control_kernel(&mut self) -> f64 {
        if !self.measure_kernel() {
            return 0.0;
        }
        let (now, budget) = (self.now(), self.kernel_budget());
        let timed = self.kernel_program_time();
        let Some(active) = self.kernel.subject.active.as_mut() else { return 0.0 };
        let (before, was_open) = (active.controller.step(), active.controller.is_open());
        let decision = active.control(now, timed, budget);
        let cost = active.controller.cost_of_cpu();
        self.obey_kernel(decision, before, was_open);
        self.time_kernel_programs();
        cost
    }

    /// Reads what the governor measures by; false: there is no trace. The CPU time
    /// that its cost is compared with is all that the machine has.
    pub(super) fn measure_kernel(&mut self) -> bool {
        let all = self.began.elapsed().mul_f64(cpus());
        let kernel = &mut self.kernel;
        let (Some(trace), Some(active)) = (&kernel.trace, kernel.subject.active.as_mut()) else {
            return false;
        };
        match trace.counters() {
            Ok(counters) => active.measure(counters, all),
            Err(error) => tracing::warn!("the counters of the kernel's trace: {error}"),
        }
        true
    }

    /// For how many nanoseconds the programs ran in the last control period, if
    /// that was measured, and for how many they were expected to.
    fn kernel_program_time(&mut self) -> Option<(f64, f64)> {
        let (_, before) = self.kernel.statistics.take()?;
        let now = self.kernel.trace.as_ref()?.program_time_ns().ok()?;
        let expected = self.kernel.subject.active.as_ref()?.expected_ns(&Prices::KERNEL_PROGRAMS);
        Some((now.saturating_sub(before) as f64, expected))
    }

    /// Has the kernel time the programs in the next control period, if they are
    /// to be timed.
    pub(super) fn time_kernel_programs(&mut self) {
        let kernel = &mut self.kernel;
        let due = kernel.subject.active.as_ref().is_some_and(Active::is_to_be_timed);
        let Some(trace) = kernel.trace.as_ref().filter(|_| due) else { return };
        kernel.statistics = program_info::take_statistics()
            .ok()
            .and_then(|statistics| Some((statistics, trace.program_time_ns().ok()?)));
    }

    /// Does what the governor decided.
    fn obey_kernel(&mut self, decision: Decision, before: Step, was_open: bool) {
        let least_slope = judge(&self.config).least_slope;
        let (now, budget) = (self.now(), self.kernel_budget());
        let kernel = &mut self.kernel;
        let growth = kernel.suspect.as_ref().map(|suspect| suspect.slope);
        let (Some(trace), Some(active)) = (&mut kernel.trace, kernel.subject.active.as_mut())
        else {
            return;
        };
        if decision.step == Step::Detached {
            let message = if budget > 0.0 {
                format!(
                    "recording it would cost {:.2} % of all CPUs at the least that tells anything",
                    active.controller.least_cost() * 100.0
                )
            } else {
                "what leakd does itself takes all of budget.machine_percent".to_owned()
            };
            self.steps.0 += 1;
            self.finish_kernel("over budget", Some(message));
            let config = &self.config.trace;
            self.kernel.subject.rest(*config.rest, *config.max_rest, true);
            return;
        }
        let turned = match (was_open, decision.open) {
            (true, false) => close(trace, active, now, growth, least_slope),
            (false, true) => {
                // As of a process: see `Core::obey`.
                let keep = is_windows(before) && is_windows(decision.step);
                let keep = keep && !active.is_to_begin_anew();
                if !keep {
                    active.begin_anew();
                }
                trace.open_window(if keep { Tables::Kept } else { Tables::Empty })
            }
            _ => Ok(()),
        };
        if let Err(error) = turned {
            let message = error.to_string();
            return self.finish_kernel("its programs cannot go in or out", Some(message));
        }
        if decision.changed {
            let down = decision.step.is_below(before);
            let cost = active.controller.cost() * 100.0;
            if down {
                self.steps.0 += 1;
            } else {
                self.steps.1 += 1;
            }
            let message = format!(
                "{} of the kernel ({}, then {}): tracing it costs {cost:.1} % of all CPUs",
                if down { "less is recorded" } else { "more is recorded" },
                before.name(),
                decision.step.name(),
            );
            self.announce(KERNEL, EventKind::Governor, message);
        }
    }

    /// Looks at the call sites, and judges.
    pub(in super::super) fn learn_kernel(&mut self) {
        let least_slope = judge(&self.config).least_slope;
        let now = self.now();
        let kernel = &mut self.kernel;
        let (Some(trace), Some(active)) = (&mut kernel.trace, kernel.subject.active.as_mut())
        else {
            return;
        };
        trace.poll();
        if !is_windows(active.controller.step()) {
            match trace.look(false) {
                Ok(look) => active.learn_totals(now, &look.sites, least_slope),
                Err(error) => return tracing::warn!("looking at the kernel: {error}"),
            }
        }
        for grower in &active.growers {
            if let Some(stack) = trace.stack(grower.site) {
                let what = place(stack.frames.clone());
                active.places.insert(grower.site, format!("{what} ({})", stack.what()));
            }
        }
        let sites = active.evidence().map(|evidence| evidence.sites);
        let Some(site) = sites.and_then(|sites| sites.into_iter().next()) else { return };
        let standing = kernel.subject.standing.as_ref();
        let known = standing.is_some_and(|event| event.evidence.is_some());
        if kernel.subject.verdict == Verdict::Growing && known {
            return;
        }
        kernel.subject.verdict = Verdict::Growing;
        let message = format!(
            "the kernel holds more and more memory: {}/min from {}",
            terminal::bytes((site.bytes_per_second * 60.0) as u64),
            if site.place.is_empty() { &site.id } else { &site.place }
        );
        self.announce(KERNEL, EventKind::Verdict, message);
    }
}

/// Closes a window, and takes what it tells.
fn close(
    trace: &mut KernelTrace,
    active: &mut Active,
    now: f64,
    growth: Option<f64>,
    least_slope: f64,
) -> Result<(), KernelError> {
    let closing = trace.close_window()?;
    let lasted = trace.windows().last_for();
    let look = trace.look(true)?;
    active.controller.window_lasted(lasted.as_secs_f64());
    let none = HashMap::new();
    let window = ClosedWindow {
        begin_ns: look.now_ns.saturating_sub(lasted.as_nanos() as u64),
        end_ns: look.now_ns.saturating_sub(closing.as_nanos() as u64),
        totals: &look.sites,
        blocks: look.blocks.as_ref().unwrap_or(&none),
    };
    active.learn_window(now, &window, growth, least_slope);
    Ok(())
}
