//! The core within another program: `leakctl top --no-daemon`.

use std::io;

use super::core::{Core, Start};
use super::handle::Handle;
use super::log::LogSwitch;
use super::raise_descriptors;
use super::signals::Signals;
use crate::config::{self, Loaded};

/// Starts the core in this process, without a socket; the canary goes ahead.
/// It runs until SIGINT, SIGTERM or the end of the process.
///
/// # Errors
/// If it cannot take signals.
pub async fn start_inside(loaded: Loaded) -> io::Result<Handle> {
    let signals = Signals::new()?;
    let start = Start {
        loaded,
        path: config::DEFAULT_PATH.into(),
        must_exist: false,
        log: LogSwitch::NONE,
        descriptors: raise_descriptors(),
    };
    // The engine's rings need the runtime, not a worker of it.
    let (core, handle, commands, telling) =
        tokio::task::spawn_blocking(move || Core::new(start)).await.map_err(io::Error::other)?;
    tokio::spawn(core.run(commands, telling, signals));
    Ok(handle)
}
