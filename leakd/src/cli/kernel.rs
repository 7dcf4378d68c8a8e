//! `leakctl kernel`

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use leakd_common::kernel::KERNEL_BLOCKS;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::kernel_args::KernelArguments;
use super::show::{Form, show, status_of};
use super::{kernel_beside, kernel_through_daemon};
use crate::kernel::{KernelTrace, Settings, hooks};
use crate::preflight::Facts;
use crate::terminal::{self, Style};

/// Between two looks into the ring.
const POLL: Duration = Duration::from_millis(20);
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(1);

/// What to say where call sites have no names.
pub(super) const NAMELESS: &str =
    "  no names: the kernel hides its addresses (sysctl kernel.kptr_restrict=0 shows them)";

/// Watches the kernel's memory for a while and reports.
pub async fn kernel(arguments: KernelArguments) -> anyhow::Result<u8> {
    let own = arguments.no_daemon || arguments.max_blocks != KERNEL_BLOCKS;
    if !own && let Some(status) = kernel_through_daemon::kernel(&arguments).await? {
        return Ok(status);
    }
    Facts::gather().check_kernel()?;
    let settings = settings(&arguments)?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut trace = KernelTrace::start(settings)?;
    say(&attached(&trace));
    for line in warnings(&trace) {
        say(&line);
    }
    let end = Instant::now() + arguments.length;
    let mut poll = interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut line = interval(PROGRESS);
    line.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let on_terminal = io::stderr().is_terminal();
    loop {
        tokio::select! {
            () = sleep_until(end) => break,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = poll.tick() => trace.poll(),
            _ = line.tick(), if on_terminal => progress(&trace, arguments.length)?,
        }
    }
    if on_terminal {
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
    let min_age = arguments.min_age(trace.elapsed());
    let snapshot = trace.finish(min_age)?;
    let report = show(snapshot, min_age.as_nanos() as u64, &arguments.output, Form::Sites)?;
    beside(&arguments);
    Ok(status_of(&report))
}

/// Shows what the kernel itself says of its memory, where a person reads.
pub(super) fn beside(arguments: &KernelArguments) {
    if arguments.output.json || arguments.output.output.is_some() {
        return;
    }
    let mut stdout = io::stdout().lock();
    let beside = kernel_beside::text(Style::of(&stdout), terminal::width(&stdout));
    // `leakctl ... | head` has seen enough.
    let _ = stdout.write_all(beside.as_bytes());
}

fn settings(arguments: &KernelArguments) -> anyhow::Result<Settings> {
    let mut settings = Settings {
        kinds: arguments.kinds(),
        bytes: arguments.min_bytes..=arguments.max_bytes.unwrap_or(u64::MAX),
        quota: arguments.max_blocks,
        ..Settings::default()
    };
    anyhow::ensure!(
        !settings.bytes.is_empty(),
        "--min-bytes {} is more than --max-bytes {}: no block can be both",
        arguments.min_bytes,
        arguments.max_bytes.unwrap_or(u64::MAX)
    );
    if let Some(cache) = &arguments.cache {
        settings.restrict(cache).map_err(anyhow::Error::msg)?;
    }
    Ok(settings)
}

/// Says what is traced. Whoever starts a load after `attached` has been said
/// sees all of it counted.
fn attached(trace: &KernelTrace) -> String {
    let traced = trace.ways().iter().filter(|way| way.hooks.is_ok());
    let names: Vec<&str> = traced.map(|way| hooks::name(way.kind)).collect();
    format!("attached to the kernel: {}", names.join(", "))
}

fn warnings(trace: &KernelTrace) -> Vec<String> {
    let untraced = trace.ways().iter().filter_map(|way| {
        let reason = way.hooks.as_ref().err()?;
        Some(format!("  not traced: {}: {reason}", hooks::name(way.kind)))
    });
    let nameless = trace.is_nameless().then(|| NAMELESS.to_owned());
    untraced.chain(nameless).collect()
}

pub(super) fn say(text: &str) {
    eprintln!("{}", terminal::safe(text));
}

fn progress(trace: &KernelTrace, length: Duration) -> anyhow::Result<()> {
    let totals = trace.totals()?;
    let whole_seconds = |time: Duration| terminal::duration(time.as_secs() * 1_000_000_000);
    let line = format!(
        "{} of {}: {} allocations, {} in {} blocks held",
        whole_seconds(trace.elapsed()),
        terminal::duration(length.as_nanos() as u64),
        terminal::count(totals.counters.allocations()),
        terminal::bytes(totals.bytes),
        terminal::count(totals.blocks)
    );
    let width = terminal::width(&io::stderr()).saturating_sub(1);
    let mut stderr = io::stderr().lock();
    // A terminal that has gone ends the trace by SIGHUP, not here.
    let _ = write!(stderr, "\r\x1b[K{}", terminal::shorten_end(&line, width));
    let _ = stderr.flush();
    Ok(())
}
