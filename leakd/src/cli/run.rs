//! `leakctl run -- CMD ARGS`

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use super::args::RunArguments;
use super::show::{Form, show};
use super::{start_engine, status};
use crate::engine::EngineError;
use crate::engine::target::SeenFrom;
use crate::launch::{LaunchError, Stage, launch};
use crate::report::Report;
use crate::trace::Trace;

const TICK: Duration = Duration::from_millis(20);
/// The command could not be started.
const NOT_STARTED: u8 = 127;

/// Runs a command under trace from its first instruction.
pub async fn run(arguments: RunArguments) -> anyhow::Result<u8> {
    let (engine, _) = start_engine(arguments.trace.settings())?;
    let mut trace = Trace::new(engine).remembering();
    // Both come from the terminal to the command as well, which decides.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    // These come to us alone and are passed on.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;

    let Some((program, rest)) = arguments.command.split_first() else {
        anyhow::bail!("no command");
    };
    let mut command = Command::new(program);
    command.args(rest);
    let mut slot = None;
    let launched = launch(&mut command, |pid, stage| -> Result<(), EngineError> {
        match (stage, slot) {
            (Stage::Started, _) => slot = Some(trace.attach(pid, SeenFrom::Start)?),
            (Stage::Mapped, Some(slot)) => trace.engine_mut().refresh_waiting(slot)?,
            (Stage::Mapped, None) => {}
        }
        Ok(())
    });
    let mut child = match launched {
        Ok(child) => child,
        Err(LaunchError::Start { command, source }) => {
            let command = command.escape_debug();
            eprintln!("leakctl: cannot run {command}: {source}");
            return Ok(NOT_STARTED);
        }
        Err(error) => return Err(error.into()),
    };

    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while trace.any_running() {
        tokio::select! {
            _ = trace.step() => {}
            _ = tick.tick() => trace.tick(),
            _ = interrupt.recv() => {}
            _ = quit.recv() => {}
            _ = terminate.recv() => pass_on(&child, Signal::SIGTERM),
            _ = hang_up.recv() => pass_on(&child, Signal::SIGHUP),
        }
    }
    let ended = child.wait()?;
    let no_allocator = trace.engine().targets().all(|target| target.probes().is_empty());
    let snapshot = trace.finish(Duration::ZERO)?;
    let report = show(snapshot, 0, &arguments.trace.output, Form::Summary)?;
    if no_allocator {
        anyhow::bail!(
            "the command mapped no allocator that can be recognized, so nothing was seen; \
             name its functions with --alloc and --free"
        );
    }
    Ok(exit_status(&report, ended, arguments.error_exitcode))
}

fn pass_on(child: &Child, signal: Signal) {
    // It is not reaped yet, so the pid is its own; it may have ended.
    let _ = kill(Pid::from_raw(child.id() as i32), signal);
}

/// The command's own status, unless blocks are outstanding and the user wants
/// to be told so.
fn exit_status(report: &Report, ended: ExitStatus, error_exitcode: Option<u8>) -> u8 {
    let outstanding = report.targets.iter().any(|target| target.outstanding.blocks > 0);
    match error_exitcode {
        Some(status) if outstanding && status != 0 => status,
        _ => match (ended.code(), ended.signal()) {
            (Some(code), _) => code as u8,
            (None, Some(signal)) => 128u8.saturating_add(signal as u8),
            (None, None) => status::TROUBLE,
        },
    }
}
