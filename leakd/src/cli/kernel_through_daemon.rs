//! `leakctl kernel` where a daemon runs: the trace is the daemon's, and costs no
//! more than that lets it.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

use super::kernel::{NAMELESS, beside, say};
use super::kernel_args::KernelArguments;
use super::show::{Form, show_report, status_of};
use super::through_daemon::trace_of;
use crate::client::{Client, ClientError};
use crate::kernel::hooks;
use crate::protocol::{Answer, Ask, ErrorCode, KERNEL_PID, KernelAttached, MOST_SITES, Which};

/// Between two looks at whether the trace goes on.
const LOOK: Duration = Duration::from_secs(1);
/// The daemon lets the trace go by itself so long after its time, if we do not.
const MARGIN: Duration = Duration::from_secs(60);

/// Has the daemon trace; `None`: there is none, or it cannot do it now.
pub async fn kernel(arguments: &KernelArguments) -> anyhow::Result<Option<u8>> {
    let Some(mut client) = Client::connect_if_any(&arguments.daemon.socket)? else {
        return Ok(None);
    };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let kinds = match arguments.only.is_empty() {
        true => Vec::new(),
        false => arguments.kinds().into_iter().map(|kind| hooks::name(kind).to_owned()).collect(),
    };
    let question = Ask::Kernel {
        for_ms: Some((arguments.length + MARGIN).as_millis() as u64),
        cache: arguments.cache.clone(),
        kinds,
        min_bytes: Some(arguments.min_bytes).filter(|bytes| *bytes > 0),
        max_bytes: arguments.max_bytes,
    };
    match client.ask(question) {
        Ok(Answer::KernelAttached(attached)) => say_attached(&attached),
        Ok(_) => anyhow::bail!("the daemon gave a strange answer"),
        Err(ClientError::Refused(failure))
            if matches!(failure.code, ErrorCode::Busy | ErrorCode::Forbidden) =>
        {
            say(&format!("not through leakd: {}; tracing from here", failure.message));
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    }
    let began = Instant::now();
    let mut ended = None;
    while began.elapsed() < arguments.length && ended.is_none() {
        let pause = LOOK.min(arguments.length.saturating_sub(began.elapsed()));
        tokio::select! {
            () = sleep(pause) => {}
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
        ended = trace_of(&mut client, KERNEL_PID)?.filter(|trace| !trace.active);
    }
    if let Some(error) = ended.and_then(|trace| trace.error) {
        say(&format!("leakd ended the trace: {error}"));
    }
    let min_age = arguments.min_age(began.elapsed());
    let question = Ask::Report {
        which: Which { pid: Some(KERNEL_PID), ..Which::default() },
        top: Some(arguments.output.sites().unwrap_or(MOST_SITES)),
        min_age_ms: Some(min_age.as_millis() as u64),
    };
    let answer = client.ask(question);
    // One that has ended by itself is not under trace any more.
    let _ = client.ask(Ask::Detach { pid: KERNEL_PID, start_time: None });
    let Answer::Report { report } = answer? else {
        anyhow::bail!("the daemon gave a strange answer");
    };
    show_report(&report, &arguments.output, Form::Sites)?;
    beside(arguments);
    Ok(Some(status_of(&report)))
}

fn say_attached(attached: &KernelAttached) {
    say(&format!("attached to the kernel through leakd: {}", attached.traced.join(", ")));
    for one in &attached.not_traced {
        say(&format!("  not traced: {}: {}", one.kind, one.reason));
    }
    if attached.nameless {
        say(NAMELESS);
    }
}
