//! `leakctl scan PID`

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::args::OutputArguments;
use super::attach::announce;
use super::progress::Progress;
use super::scan_args::ScanArguments;
use super::{scan_through_daemon, start_engine, status};
use crate::engine::scan::ScanSource;
use crate::engine::target::{SeenFrom, Target};
use crate::process::inspect;
use crate::report::scan::{self as model, ScanReport};
use crate::report::text::{Options, render_scan};
use crate::scan::{Outcome, ScanError, live};
use crate::terminal::{self, Style};
use crate::trace::Trace;

/// Between two looks at whether targets have ended or mapped new code.
const TICK: Duration = Duration::from_millis(100);
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(1);

/// Records a process's allocations for a while, then scans it.
pub async fn scan(arguments: ScanArguments) -> anyhow::Result<u8> {
    let through_daemon = !arguments.no_daemon && !arguments.limits.are_special();
    if through_daemon && let Some(report) = scan_through_daemon::scan(&arguments).await? {
        return finish(&report, &arguments.output);
    }
    crate::preflight::Facts::gather().check()?;
    inspect(arguments.pid)?;
    let (engine, canary) = start_engine(arguments.limits.settings())?;
    let mut trace = Trace::new(engine);
    let mut signals = Signals::new()?;
    let slot = trace.attach(arguments.pid, SeenFrom::Attach)?;
    let mut progress = Progress::new(Some(arguments.duration()), &canary);
    if let Some(target) = trace.engine().target(slot) {
        announce(target, &mut progress);
    }
    record(&mut trace, &arguments, &mut signals, &mut progress).await;
    progress.clear();
    let target = trace.engine().target(slot).context("the process is not under trace any more")?;
    let generation = target.generation().ok_or(ScanError::Gone)?;
    let source = trace.engine().scan_source(target)?;
    let outcome = look(&mut trace, source, arguments.pause(), &mut signals, &mut progress).await?;
    // What was freed by an exec, or when probes had gone, was not seen.
    trace.tick();
    let now = trace.engine().target(slot).and_then(Target::generation);
    if now != Some(generation) {
        return Err(ScanError::Gone.into());
    }
    let snapshot = trace.finish(Duration::ZERO)?;
    let target = snapshot.targets.into_iter().next().context("the process is not there")?;
    finish(&model::build(target, &outcome, arguments.output.sites()), &arguments.output)
}

/// Ctrl-C, and a request to end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Records allocations until the time is over, or a signal says that it is enough.
async fn record(
    trace: &mut Trace,
    arguments: &ScanArguments,
    signals: &mut Signals,
    progress: &mut Progress,
) {
    let end = Instant::now() + arguments.duration();
    let every = |period| {
        let mut interval = interval(period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval
    };
    let (mut tick, mut line) = (every(TICK), every(PROGRESS));
    loop {
        tokio::select! {
            () = sleep_until(end) => break,
            () = signals.any() => break,
            _ = trace.step() => {}
            _ = tick.tick() => {
                trace.tick();
                if !trace.any_running() {
                    break;
                }
            }
            _ = line.tick() => progress.show(trace.engine()),
        }
    }
}

/// Scans while the trace goes on: ends of blocks are to be seen.
async fn look(
    trace: &mut Trace,
    source: ScanSource,
    pause: Option<Duration>,
    signals: &mut Signals,
    progress: &mut Progress,
) -> anyhow::Result<Outcome> {
    static DONE: AtomicU64 = AtomicU64::new(0);
    let mut scanning = tokio::task::spawn_blocking(move || {
        source.scan(pause, &mut |rounds, lost| {
            DONE.store(u64::from(rounds) << 48 | lost, Ordering::Relaxed);
        })
    });
    let mut line = interval(PROGRESS);
    line.tick().await;
    loop {
        tokio::select! {
            outcome = &mut scanning => return Ok(outcome??),
            // The process ends all threads, and whoever they hold runs on.
            () = signals.any() => anyhow::bail!("interrupted: nothing is known; the process runs on"),
            _ = trace.step() => {}
            _ = line.tick() => {
                trace.tick();
                let done = DONE.load(Ordering::Relaxed);
                progress.note(&format!(
                    "looked at {} of {} times: {} blocks seem to be lost",
                    done >> 48,
                    live::ROUNDS,
                    terminal::count(done & ((1 << 48) - 1))
                ));
            }
        }
    }
}

/// Writes the report where it belongs; gives the exit status.
fn finish(report: &ScanReport, arguments: &OutputArguments) -> anyhow::Result<u8> {
    let text = |options: &Options| -> anyhow::Result<String> {
        Ok(match arguments.json {
            true => serde_json::to_string_pretty(report)? + "\n",
            false => render_scan(report, options),
        })
    };
    if let Some(path) = &arguments.output {
        let options = Options { all_frames: arguments.all_frames, ..Options::default() };
        let cannot = || format!("cannot write {}", path.display());
        let mut file = BufWriter::new(File::create(path).with_context(cannot)?);
        file.write_all(text(&options)?.as_bytes())
            .and_then(|()| file.flush())
            .with_context(cannot)?;
    } else {
        let stdout = io::stdout().lock();
        let style = if stdout.is_terminal() { Style::of(&stdout) } else { Style::PLAIN };
        let options =
            Options { style, width: terminal::width(&stdout), all_frames: arguments.all_frames };
        super::ask::print(&text(&options)?)?;
    }
    let lost = report.total.definitely_lost.blocks > 0;
    Ok(if lost { status::LEAKS } else { status::CLEAN })
}
