//! `leakctl doctor PID...`: how far the call stacks of a process can be
//! followed, and where and why not.

use std::fmt::Write;

use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::args::DoctorArguments;
use crate::engine::Engine;
use crate::engine::target::SeenFrom;
use crate::report;
use crate::report::model::{Stacks, Stopped, Target, WithoutTable};
use crate::report::text::{base_name, brief};
use crate::terminal::{count, percent, safe_within};
use crate::trace::Trace;

/// Between two looks at whether the processes still run.
const TICK: std::time::Duration = std::time::Duration::from_millis(100);

/// What was seen of one process's stacks.
#[derive(Debug, Serialize)]
pub struct ProcessStacks {
    pid: u32,
    comm: String,
    /// How far the stacks of its allocations could be followed.
    stacks: Stacks,
    /// Where the others stopped.
    stopped: Vec<Stopped>,
    /// Files that have no unwind table.
    without_table: Vec<WithoutTable>,
}

/// Traces the processes for a while.
pub async fn look(
    engine: Engine,
    arguments: &DoctorArguments,
) -> anyhow::Result<Vec<ProcessStacks>> {
    if arguments.pids.is_empty() {
        return Ok(Vec::new());
    }
    let mut trace = Trace::new(engine);
    for &pid in &arguments.pids {
        trace.attach(pid, SeenFrom::Attach)?;
    }
    let end = Instant::now() + arguments.duration;
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = sleep_until(end) => break,
            _ = trace.step() => {}
            _ = tick.tick() => {
                trace.tick();
                if !trace.any_running() {
                    break;
                }
            }
        }
    }
    let snapshot = trace.finish(arguments.duration)?;
    let settings = report::Settings { min_age_ns: 0, top: Some(0) };
    let report = report::build(snapshot, &settings);
    Ok(report.targets.into_iter().map(ProcessStacks::of).collect())
}

impl ProcessStacks {
    fn of(target: Target) -> Self {
        let coverage = target.coverage;
        Self {
            pid: target.pid,
            comm: target.comm,
            stacks: coverage.stacks,
            stopped: coverage.stopped,
            without_table: coverage.without_table,
        }
    }

    /// Some lines for people.
    pub fn text(&self) -> String {
        let Stacks { walked, complete } = self.stacks;
        let mut text = format!("\n{} (pid {}): ", safe_within(&self.comm, 32), self.pid);
        let share = |part: u64| percent(part as f64 / walked.max(1) as f64);
        let _ = match walked {
            0 => writeln!(text, "no allocation was seen."),
            _ => writeln!(
                text,
                "{} allocations, {} of their stacks complete.",
                count(walked),
                share(complete)
            ),
        };
        for stopped in &self.stopped {
            let module = stopped.module.as_deref().map_or("unknown code", base_name);
            let module = safe_within(module, 40);
            let why = brief(stopped.end);
            let _ = writeln!(text, "  {} end in {module}: {why}", share(stopped.walked));
        }
        if !self.without_table.is_empty() {
            text.push_str("  Files without an unwind table:\n");
        }
        for WithoutTable { module, reason } in &self.without_table {
            let _ = writeln!(
                text,
                "    {}\n      {}",
                safe_within(module, 74),
                safe_within(reason, 72)
            );
        }
        text
    }
}
