//! What the daemon says: to the journal with fields, or to a terminal.

use std::os::unix::fs::MetadataExt;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::config::LogLevel;
use crate::terminal::Style;

/// Changes how much is said.
#[derive(Clone, Debug)]
pub struct LogSwitch(Option<Handle<Targets, Registry>>);

impl LogSwitch {
    /// Of a log that is somebody else's.
    pub const NONE: Self = Self(None);

    /// Says so much from now on.
    #[allow(clippy::print_stderr, reason = "the log is what does not work")]
    pub fn set(&self, level: LogLevel) {
        let Some(switch) = &self.0 else { return };
        if let Err(error) = switch.reload(filter(level)) {
            eprintln!("leakd: the log level cannot be changed: {error}");
        }
    }
}

/// Sets the log up: to the journal where standard error leads there, else to
/// standard error.
pub fn set_up(level: LogLevel) -> LogSwitch {
    let (filter, switch) = reload::Layer::new(filter(level));
    let output = if to_journal() { tracing_journald::layer().ok() } else { None };
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match output {
        Some(journal) => journal.with_syslog_identifier("leakd".into()).boxed(),
        None => tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(Style::of(&std::io::stderr()).coloured())
            .with_target(false)
            .without_time()
            .boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
    LogSwitch(Some(switch))
}

/// Whether standard error is the stream that systemd connects to the journal
/// (systemd.exec(5), JOURNAL_STREAM).
fn to_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    std::fs::metadata("/proc/self/fd/2")
        .is_ok_and(|data| stream == format!("{}:{}", data.dev(), data.ino()))
}

fn filter(level: LogLevel) -> Targets {
    let own = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // Of libraries, errors only.
    Targets::new().with_default(LevelFilter::ERROR).with_target("leakd", own)
}
