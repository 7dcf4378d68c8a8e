//! `leakctl attach` where a daemon runs: the trace is the daemon's, and
//! survives this client.

use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use super::args::AttachArguments;
use super::show::{Form, show_report, status_of};
use super::status;
use crate::client::{Client, ClientError};
use crate::protocol::{Answer, Ask, Attached, ErrorCode, MOST_SITES, Sort, TraceView, Which};
use crate::report::Report;
use crate::terminal::safe;

/// Between two looks at whether the processes still run.
const LOOK: Duration = Duration::from_secs(1);
/// For the last report of a process that has just ended.
const LAST_REPORT: Duration = Duration::from_secs(30);

/// Has the daemon trace; `None`: there is none.
pub async fn attach(arguments: &AttachArguments) -> anyhow::Result<Option<u8>> {
    let socket = &arguments.daemon.socket;
    let client = match arguments.detach {
        true => Some(Client::connect(socket)?),
        false => Client::connect_if_any(socket)?,
    };
    let Some(mut client) = client else { return Ok(None) };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let length = if arguments.detach { arguments.length } else { None };
    let mut ours = Vec::new();
    for &pid in &arguments.pids {
        let sample_bytes = Some(arguments.trace.sample_bytes).filter(|bytes| *bytes > 0);
        let for_ms = length.map(|length| length.as_millis() as u64);
        match client.ask(Ask::Attach { pid, start_time: None, for_ms, sample_bytes }) {
            Ok(Answer::Attached(attached)) => {
                say(&attached);
                if !attached.already {
                    ours.push((pid, Some(attached.start_time)));
                }
            }
            other => {
                // All or nothing, as without a daemon.
                for (pid, start_time) in ours {
                    let _ = client.ask(Ask::Detach { pid, start_time });
                }
                other?;
                anyhow::bail!("the daemon gave a strange answer");
            }
        }
    }
    if arguments.detach {
        return Ok(Some(status::CLEAN));
    }
    let end = Instant::now() + arguments.duration();
    while Instant::now() < end && any_running(&mut client, &arguments.pids)? {
        let pause = LOOK.min(end.saturating_duration_since(Instant::now()));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    let mut report: Option<Report> = None;
    for &pid in &arguments.pids {
        let one = report_of(&mut client, pid, arguments)?;
        match &mut report {
            Some(report) => report.targets.extend(one.targets),
            None => report = Some(one),
        }
    }
    for (pid, start_time) in ours {
        // One that has ended is not under trace any more.
        let _ = client.ask(Ask::Detach { pid, start_time });
    }
    let Some(report) = report else { return Ok(Some(status::CLEAN)) };
    show_report(&report, &arguments.trace.output, Form::Sites)?;
    Ok(Some(status_of(&report)))
}

pub(super) fn say(attached: &Attached) {
    let goes_on = if attached.already { " (it was under trace already)" } else { "" };
    let line = format!(
        "attached to {} (pid {}) through leakd: {} functions in {}{goes_on}",
        attached.comm,
        attached.pid,
        attached.functions,
        attached.modules.join(", ")
    );
    eprintln!("{}", safe(&line));
    for symbol in &attached.single_stepped {
        eprintln!("  slow: the kernel single-steps the probe in {}", safe(symbol));
    }
}

fn any_running(client: &mut Client, pids: &[u32]) -> anyhow::Result<bool> {
    for &pid in pids {
        if trace_of(client, pid)?.is_some_and(|trace| trace.active) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The daemon's trace of a process, or its last one; `None`: there was none.
pub(super) fn trace_of(client: &mut Client, pid: u32) -> anyhow::Result<Option<TraceView>> {
    let question = Ask::Targets {
        pid: Some(pid),
        all: false,
        series: false,
        sort: Sort::default(),
        limit: None,
    };
    match client.ask(question) {
        Ok(Answer::Targets(targets)) => {
            Ok(targets.processes.into_iter().find_map(|process| process.trace))
        }
        Ok(_) => anyhow::bail!("the daemon gave a strange answer"),
        Err(ClientError::Refused(failure)) if failure.code == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The report of a process; of one that has just ended, the daemon may be
/// looking up names still.
fn report_of(client: &mut Client, pid: u32, arguments: &AttachArguments) -> anyhow::Result<Report> {
    let question = Ask::Report {
        which: Which { pid: Some(pid), ..Which::default() },
        top: Some(arguments.trace.output.sites().unwrap_or(MOST_SITES)),
        min_age_ms: Some(arguments.min_age().as_millis() as u64),
    };
    let end = Instant::now() + LAST_REPORT;
    loop {
        match client.ask(question.clone()) {
            Ok(Answer::Report { report }) => return Ok(report),
            Err(ClientError::Refused(failure))
                if matches!(failure.code, ErrorCode::NotFound | ErrorCode::Busy)
                    && Instant::now() < end =>
            {
                std::thread::sleep(Duration::from_millis(200));
            }
            Err(error) => return Err(error.into()),
            Ok(_) => anyhow::bail!("the daemon gave a strange answer"),
        }
    }
}
