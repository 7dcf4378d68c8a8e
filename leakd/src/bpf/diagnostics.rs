//! What the BPF programs say of themselves, passed on to `tracing`.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};

use aya::Ebpf;
use aya_log::{EbpfLogger, Level};
use log::{Log, Metadata, Record};
use tracing::enabled;

/// The target of these events, as filters name it.
const TARGET: &str = "leakd::bpf";

/// The map that aya-log's programs write to.
pub const MAP: &str = "AYA_LOGS";

/// How much the programs are to say: what `tracing` lets through now, as the
/// number that `AYA_LOG_LEVEL` takes; nothing is 0.
pub fn level() -> u8 {
    let highest = if enabled!(target: TARGET, tracing::Level::TRACE) {
        Level::Trace
    } else if enabled!(target: TARGET, tracing::Level::DEBUG) {
        Level::Debug
    } else if enabled!(target: TARGET, tracing::Level::INFO) {
        Level::Info
    } else if enabled!(target: TARGET, tracing::Level::WARN) {
        Level::Warn
    } else if enabled!(target: TARGET, tracing::Level::ERROR) {
        Level::Error
    } else {
        return 0;
    };
    highest as u8
}

/// The reader of what the programs of one object say.
pub struct Diagnostics(EbpfLogger<ToTracing>);

impl Diagnostics {
    /// Takes the log out of an object. Programs that are loaded later still need
    /// its map: this must live as long as the object.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, aya_log::Error> {
        EbpfLogger::init_with_logger(ebpf, ToTracing).map(Self)
    }

    /// Passes on what was said since the last time.
    pub fn pass_on(&mut self) {
        self.0.flush();
    }

    /// The map's descriptor.
    pub fn map(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl fmt::Debug for Diagnostics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Diagnostics").field(&self.map()).finish()
    }
}

/// aya-log speaks to the `log` crate; leakd's own log is `tracing`'s.
struct ToTracing;

impl Log for ToTracing {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let said = record.args();
        match record.level() {
            log::Level::Error => tracing::error!(target: TARGET, "bpf: {said}"),
            log::Level::Warn => tracing::warn!(target: TARGET, "bpf: {said}"),
            log::Level::Info => tracing::info!(target: TARGET, "bpf: {said}"),
            log::Level::Debug => tracing::debug!(target: TARGET, "bpf: {said}"),
            log::Level::Trace => tracing::trace!(target: TARGET, "bpf: {said}"),
        }
    }

    fn flush(&self) {}
}
