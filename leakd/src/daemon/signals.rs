//! The signals that the daemon obeys.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals.
#[derive(Debug)]
pub struct Signals {
    /// SIGTERM ends it.
    pub terminate: Signal,
    /// SIGINT, too.
    pub interrupt: Signal,
    /// SIGHUP reads the configuration again.
    pub hangup: Signal,
}

impl Signals {
    /// Takes the signals. Within a tokio runtime only.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}
