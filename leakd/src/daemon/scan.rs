//! Scans for clients: on threads of their own, one at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::core::{Core, Told};
use super::memory;
use super::subject::Key;
use crate::engine::scan::Generation;
use crate::engine::target::Target;
use crate::protocol::{Answer, ErrorCode, Failure, MOST_SITES};
use crate::report::scan as model;
use crate::scan::{Outcome, ScanError};
use crate::symbol::Symbolizer;
use crate::trace::Prepared;

/// Call sites, if the client does not say.
const DEFAULT_TOP: usize = 100;
/// The longest that a client may have a process stopped for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// What is waited for, for names that are not there yet.
const NAMES_WAIT: Duration = Duration::from_secs(5);

/// A scan that is over.
#[derive(Debug)]
pub(super) struct Scanned {
    key: Key,
    generation: Generation,
    outcome: Result<Outcome, ScanError>,
    top: usize,
    reply: oneshot::Sender<Answer>,
    permit: tokio::sync::OwnedSemaphorePermit,
}

impl Core {
    /// Scans a process under trace, for a client.
    pub(super) fn scan(
        &mut self,
        (pid, start_time): (u32, Option<u64>),
        max_pause_ms: Option<u64>,
        top: Option<usize>,
        reply: oneshot::Sender<Answer>,
    ) {
        let refuse = |reply: oneshot::Sender<Answer>, code, message: String| {
            // A client that has gone does not matter.
            let _ = reply.send(Answer::failed(code, message));
        };
        let is_it =
            |key: &Key| key.0 == pid && start_time.is_none_or(|start_time| key.1 == start_time);
        let found = self.subjects.iter().find(|(key, one)| is_it(key) && one.active.is_some());
        let slot = found.and_then(|(key, one)| Some((*key, one.active.as_ref()?.slot)));
        let (Some((key, slot)), Some(trace)) = (slot, &self.trace) else {
            let message = format!("process {pid} is not under trace: attach to it first");
            return refuse(reply, ErrorCode::NotFound, message);
        };
        let Ok(permit) = Arc::clone(&self.scans).try_acquire_owned() else {
            let message = "another scan goes on: try again".to_owned();
            return refuse(reply, ErrorCode::Busy, message);
        };
        let target = trace.engine().target(slot);
        let Some(generation) = target.and_then(Target::generation) else {
            let message = format!(
                "frees of process {pid} were missed, because its probes were out for a while to \
                 keep within the budget: `leakctl scan --no-daemon {pid}` records all of them"
            );
            return refuse(reply, ErrorCode::CannotTrace, message);
        };
        let source = target.map(|target| trace.engine().scan_source(target));
        let source = match source {
            Some(Ok(source)) => source,
            _ => return refuse(reply, ErrorCode::Internal, "no descriptors are left".to_owned()),
        };
        let pause = max_pause_ms.map(|pause| Duration::from_millis(pause).min(LONGEST_PAUSE));
        let top = top.unwrap_or(DEFAULT_TOP).min(MOST_SITES);
        let told = self.told.clone();
        tokio::task::spawn_blocking(move || {
            let outcome = source.scan(pause, &mut |_, _| {});
            let scanned = Scanned { key, generation, outcome, top, reply, permit };
            // The core has ended: nobody wants to know.
            let _ = told.blocking_send(Told::Scanned(Box::new(scanned)));
        });
    }

    /// A scan is over: if the ledger told the truth all the time, so does it.
    pub(super) fn scanned(&mut self, scanned: Scanned) {
        let Scanned { key, generation, outcome, top, reply, permit } = scanned;
        let confirmed = outcome
            .map_err(|error| Failure::new(ErrorCode::CannotTrace, error.to_string()))
            .and_then(|outcome| Ok((outcome, self.confirm(key, generation)?)));
        let (outcome, (prepared, symbolizer)) = match confirmed {
            Ok(confirmed) => confirmed,
            Err(failure) => {
                // A client that has gone does not matter.
                let _ = reply.send(Answer::Error(failure));
                return;
            }
        };
        tokio::task::spawn_blocking(move || {
            let target = prepared.name(&symbolizer, NAMES_WAIT);
            let report = model::build(target, &outcome, Some(top));
            drop((outcome, permit));
            memory::give_back();
            let _ = reply.send(Answer::Scan { report });
        });
    }

    /// What is to be named of a process that was scanned, if its ledger has been the
    /// same all the time.
    fn confirm(
        &mut self,
        key: Key,
        generation: Generation,
    ) -> Result<(Prepared, Arc<Symbolizer>), Failure> {
        let gone = || Failure::new(ErrorCode::CannotTrace, ScanError::Gone.to_string());
        let slot = self.subjects.get(&key).and_then(|one| Some(one.active.as_ref()?.slot));
        let (Some(slot), Some(trace)) = (slot, &mut self.trace) else { return Err(gone()) };
        trace.tick();
        if trace.engine().target(slot).and_then(Target::generation) != Some(generation) {
            let message = "frees were missed while it was looked at, or it has replaced its \
                           program: nothing is known; try again";
            return Err(Failure::new(ErrorCode::CannotTrace, message));
        }
        match trace.look(slot, Duration::ZERO, None) {
            Ok(Some(prepared)) => Ok((prepared, Arc::clone(trace.symbolizer()))),
            Ok(None) => Err(gone()),
            Err(error) => Err(Failure::new(ErrorCode::Internal, error.to_string())),
        }
    }
}
