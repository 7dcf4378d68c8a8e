//! The daemon: watches, decides, traces, answers.
//!
//! | file | concern |
//! |---|---|
//! | [`core`] | the task that owns all traces, and its loop |
//! | [`decide`] | what is traced next, and what is held of each process |
//! | [`tracing`] | how traces begin, go on and end |
//! | [`active`] | a process under trace |
//! | [`subject`] | what is kept of a process |
//! | [`leaks`] | call sites of which that is known to leak |
//! | [`windows`] | call sites that grow, where probes are in for a second at a time only |
//! | [`handle`] | how it is reached, and what needs not wait for it |
//! | [`answers`], [`view`] | what clients are told |
//! | [`scan`] | scans for clients |
//! | [`kernel`] | the kernel's own memory as a target |
//! | [`log`], [`notify`], [`signals`] | journal, systemd, signals |
//! | [`inside`] | the same core within another program, without a socket |
//! | [`memory`] | its own |

mod active;
mod answers;
mod args;
mod core;
mod decide;
mod handle;
mod inside;
mod kernel;
mod leaks;
mod log;
mod memory;
mod notify;
mod scan;
mod signals;
mod subject;
mod tracing;
mod view;
mod windows;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

pub use self::handle::{Command, Handle};
pub use args::Arguments;
pub use inside::start_inside;

use self::core::{Core, Start};
use crate::canary::child;
use crate::config;
use crate::server::Server;
use crate::server::socket::{Listening, group_id};
use signals::Signals;

/// Descriptors that are left for all but the watch.
const OTHER_DESCRIPTORS: u64 = 1024;
/// Status files that are kept open at most: each holds a page in the kernel.
const MOST_STATUS_FILES: u64 = 16 << 10;

/// Runs leakd.
pub fn main() -> ExitCode {
    // The canary's child: before anything is set up, since it must not allocate.
    if std::env::args_os().nth(1).is_some_and(|word| word == child::COMMAND) {
        return ExitCode::from(child::run() as u8);
    }
    let arguments = Arguments::parse();
    let path = arguments.config.clone().unwrap_or_else(|| config::DEFAULT_PATH.into());
    let must_exist = arguments.config.is_some();
    let loaded = match config::load(&path, must_exist) {
        Ok(loaded) => loaded,
        Err(error) => return trouble(&error.to_string()),
    };
    if arguments.print_config {
        let text = config::print(&loaded.config);
        return match std::io::stdout().lock().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::from(2),
        };
    }
    // What is made is for root alone, unless it is given to others.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    memory::limit_arenas();
    let log = log::set_up(loaded.config.log_level);
    let start = Start { loaded, path, must_exist, log, descriptors: raise_descriptors() };
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return trouble(&format!("cannot start: {error}")),
        };
    let result = runtime.block_on(run(start));
    // A symbolizer that hangs in a hostile file must not hold us back.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => trouble(&message),
    }
}

async fn run(start: Start) -> Result<(), String> {
    let signals = Signals::new().map_err(|error| format!("cannot take signals: {error}"))?;
    let server = start.loaded.config.server.clone();
    // The socket comes first: a second daemon is to touch nothing.
    let listening =
        Listening::bind(&server.socket, &server.group).map_err(|error| error.to_string())?;
    let admin_gid = group_id(&server.admin_group);
    if admin_gid.is_none() && !server.admin_group.is_empty() {
        ::tracing::warn!("there is no group {}: only root may change things", server.admin_group);
    }
    let (core, handle, commands, telling) = tokio::task::spawn_blocking(move || {
        // The engine's rings need the runtime, not a worker of it.
        Core::new(start)
    })
    .await
    .map_err(|error| format!("cannot start: {error}"))?;
    let serving = tokio::spawn(Server { listening, core: handle, admin_gid }.serve());
    ::tracing::info!(socket = %server.socket.display(), "leakd {} is ready", env!("CARGO_PKG_VERSION"));
    notify::ready();
    // On a worker, where it may block.
    let ended = tokio::spawn(core.run(commands, telling, signals)).await;
    serving.abort();
    // Its end takes the socket away.
    let _ = serving.await;
    ended.map_err(|error| format!("a fault of leakd: {error}"))
}

/// Raises the limit of descriptors as far as it may be; gives how many status
/// files the watch may keep open.
fn raise_descriptors() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    let wanted = hard.min(MOST_STATUS_FILES + OTHER_DESCRIPTORS);
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, wanted.max(soft), hard) {
        Ok(()) => wanted.max(soft),
        Err(_) => soft,
    };
    limit.saturating_sub(OTHER_DESCRIPTORS).min(MOST_STATUS_FILES) as usize
}

#[allow(clippy::print_stderr, reason = "there is no log yet, or none any more")]
fn trouble(message: &str) -> ExitCode {
    eprintln!("leakd: {}", crate::terminal::safe(message));
    ExitCode::from(2)
}
