//! `leakctl attach PID...`

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::args::AttachArguments;
use super::progress::Progress;
use super::show::{Form, show, status_of};
use super::{start_engine, through_daemon};
use crate::engine::target::{SeenFrom, Target};
use crate::process::inspect;
use crate::trace::Trace;

/// Between two looks at whether targets have ended or mapped new code.
const TICK: Duration = Duration::from_millis(100);
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(1);

/// Watches processes for a while and reports.
pub async fn attach(arguments: AttachArguments) -> anyhow::Result<u8> {
    if arguments.detach && arguments.trace.needs_own_engine() {
        anyhow::bail!(
            "--detach leaves the trace to the daemon, which does not take --alloc, --free, \
             --follow-forks and --max-blocks"
        );
    }
    let through_daemon = !arguments.no_daemon && !arguments.trace.needs_own_engine();
    if through_daemon && let Some(status) = through_daemon::attach(&arguments).await? {
        return Ok(status);
    }
    // What is wrong with a pid is said before the engine is started.
    crate::preflight::Facts::gather().check()?;
    for &pid in &arguments.pids {
        inspect(pid)?;
    }
    let (engine, canary) = start_engine(arguments.trace.settings())?;
    let mut trace = Trace::new(engine).remembering();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    for &pid in &arguments.pids {
        trace.attach(pid, SeenFrom::Attach)?;
    }
    let end = Instant::now() + arguments.duration();
    let mut progress = Progress::new(Some(arguments.duration()), &canary);
    for target in trace.engine().targets() {
        announce(target, &mut progress);
    }
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut line = interval(PROGRESS);
    line.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = sleep_until(end) => break,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            child = trace.step() => {
                if let Some(target) = child.and_then(|slot| trace.engine().target(slot)) {
                    announce(target, &mut progress);
                }
            }
            _ = tick.tick() => {
                trace.tick();
                if !trace.any_running() {
                    break;
                }
            }
            _ = line.tick() => progress.show(trace.engine()),
        }
    }
    progress.clear();
    let min_age = arguments.min_age();
    let snapshot = trace.finish(min_age)?;
    let report = show(snapshot, min_age.as_nanos() as u64, &arguments.trace.output, Form::Sites)?;
    Ok(status_of(&report))
}

/// Says what is under trace, and what will be slow. Whoever starts a load
/// after `attached` has been said sees all of it counted.
pub(super) fn announce(target: &Target, progress: &mut Progress) {
    let functions = target.probes().functions();
    let mut modules: Vec<&str> = functions.iter().map(|one| one.module.as_str()).collect();
    modules.sort_unstable();
    modules.dedup();
    progress.say(&format!(
        "attached to {} (pid {}): {} functions in {}",
        target.info().comm,
        target.pid(),
        functions.len(),
        modules.join(", ")
    ));
    for function in functions {
        if let Some(instruction) = &function.single_stepped {
            progress.say(&format!(
                "  slow: {} begins with an instruction that the kernel single-steps \
                 ({instruction})",
                function.symbol
            ));
        }
    }
}
