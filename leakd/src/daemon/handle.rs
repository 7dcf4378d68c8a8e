//! How the core is reached, and what is known of it without waiting for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::protocol::{Answer, Ask, Event, Status};

/// What somebody wants of the core.
#[derive(Debug)]
pub struct Command {
    /// The question.
    pub ask: Ask,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Answer>,
}

/// The core's state when it last had time to tell.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub status: Status,
    pub at: Instant,
}

impl Default for Published {
    fn default() -> Self {
        Self { status: Status::default(), at: Instant::now() }
    }
}

/// How to reach the core.
#[derive(Clone, Debug)]
pub struct Handle {
    /// Questions.
    pub(super) commands: mpsc::Sender<Command>,
    /// What happens.
    pub(super) events: broadcast::Sender<Event>,
    /// Clients that are connected.
    pub(super) clients: Arc<AtomicUsize>,
    /// Its state.
    pub(super) status: watch::Receiver<Published>,
}

impl Handle {
    /// Asks, and waits for the answer; `None`: the core has ended. `status`
    /// never waits.
    pub async fn ask(&self, ask: Ask) -> Option<Answer> {
        if ask == (Ask::Status {}) {
            return Some(Answer::Status(self.status()));
        }
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command { ask, reply }).await.ok()?;
        answer.await.ok()
    }

    /// What happens from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Counts clients, for the status.
    pub fn clients(&self) -> &Arc<AtomicUsize> {
        &self.clients
    }

    fn status(&self) -> Status {
        let Published { mut status, at } = self.status.borrow().clone();
        status.age_ms = at.elapsed().as_millis() as u64;
        status.uptime_ms = status.uptime_ms.saturating_add(status.age_ms);
        status.own.cpu_ms = super::tracing::own_cpu().as_millis() as u64;
        status.clients = self.clients.load(Ordering::Relaxed);
        status
    }
}
