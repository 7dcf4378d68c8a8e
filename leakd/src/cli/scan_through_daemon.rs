//! `leakctl scan` where a daemon runs: its ledger has the blocks.

use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use super::scan_args::ScanArguments;
use super::through_daemon::say;
use crate::client::Client;
use crate::protocol::{Answer, Ask, MOST_SITES};
use crate::report::scan::ScanReport;

/// Has the daemon record and scan; `None`: there is none.
pub async fn scan(arguments: &ScanArguments) -> anyhow::Result<Option<ScanReport>> {
    let Some(mut client) = Client::connect_if_any(&arguments.daemon.socket)? else {
        return Ok(None);
    };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let pid = arguments.pid;
    let question = Ask::Attach { pid, start_time: None, for_ms: None, sample_bytes: Some(0) };
    let Answer::Attached(attached) = client.ask(question)? else {
        anyhow::bail!("the daemon gave a strange answer");
    };
    say(&attached);
    let start_time = Some(attached.start_time);
    let begin = Instant::now();
    let length = match arguments.length {
        None if attached.already => Duration::ZERO,
        _ => arguments.duration(),
    };
    tokio::select! {
        () = tokio::time::sleep(length.saturating_sub(begin.elapsed())) => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    // As long as it takes; Ctrl-C ends the waiting, and the daemon goes on.
    client.set_patience(None)?;
    let question = Ask::Scan {
        pid,
        start_time,
        max_pause_ms: arguments.pause().map(|pause| pause.as_millis() as u64),
        top: Some(arguments.output.sites().unwrap_or(MOST_SITES)),
    };
    let mut scanning = tokio::task::spawn_blocking(move || {
        let answer = client.ask(question);
        (client, answer)
    });
    let (mut client, answer) = tokio::select! {
        done = &mut scanning => done?,
        _ = interrupt.recv() => anyhow::bail!("interrupted: the daemon goes on without us"),
        _ = terminate.recv() => anyhow::bail!("interrupted: the daemon goes on without us"),
    };
    if !attached.already {
        // One that has ended is not under trace any more.
        let _ = client.ask(Ask::Detach { pid, start_time });
    }
    match answer? {
        Answer::Scan { report } => Ok(Some(report)),
        _ => anyhow::bail!("the daemon gave a strange answer"),
    }
}
