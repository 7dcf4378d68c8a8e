//! What the operator wants: `/etc/leakd/leakd.toml` and its drop-ins.

mod keys;
mod load;
mod select;
mod value;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use keys::{KEYS, Key, print};
pub use load::{ConfigError, DEFAULT_PATH, Loaded, load};
pub use select::{Select, Subject};
pub use value::{Count, Pattern, Percent, Span, UserName};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The settings of the daemon. [`KEYS`] says what each means.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Config {
    pub mode: Mode,
    pub log_level: LogLevel,
    pub watch: WatchConfig,
    pub trace: TraceConfig,
    pub budget: BudgetConfig,
    pub kernel: KernelConfig,
    pub include: Select,
    pub exclude: Select,
    pub server: ServerConfig,
}

/// What is traced without being asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// What grows.
    #[default]
    Adaptive,
    /// What `include` names, always.
    Targets,
    /// Everything, as far as there is room.
    All,
    /// Nothing.
    Off,
}

impl Mode {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Adaptive => "adaptive",
            Self::Targets => "targets",
            Self::All => "all",
            Self::Off => "off",
        }
    }

    /// The mode of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Adaptive, Self::Targets, Self::All, Self::Off]
            .into_iter()
            .find(|mode| mode.name() == name)
    }
}

/// How much goes to the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    /// The level of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace]
            .into_iter()
            .find(|level| level.name() == name)
    }
}

/// `[watch]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct WatchConfig {
    pub interval: Span<500, HOUR>,
    pub startup: Span<0, DAY>,
    pub min_growth_mib_per_hour: Count<1, 1_000_000>,
    pub max_processes: Count<1, 1_000_000>,
}

impl Default for WatchConfig {
    fn default() -> Self {
        Self {
            interval: const { Span::new(5 * SECOND) },
            startup: const { Span::new(30 * SECOND) },
            min_growth_mib_per_hour: const { Count::new(4) },
            max_processes: const { Count::new(20_000) },
        }
    }
}

/// `[trace]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct TraceConfig {
    pub max_targets: Count<1, 128>,
    pub window: Span<{ 10 * SECOND }, DAY>,
    pub rest: Span<{ 10 * SECOND }, DAY>,
    pub max_rest: Span<{ 10 * SECOND }, { 30 * DAY }>,
    pub min_age: Span<0, DAY>,
    pub sample_bytes: Count<0, { 1 << 40 }>,
    pub max_blocks: Count<1_000, { 1 << 28 }>,
}

impl Default for TraceConfig {
    fn default() -> Self {
        Self {
            max_targets: const { Count::new(8) },
            window: const { Span::new(2 * MINUTE) },
            rest: const { Span::new(5 * MINUTE) },
            max_rest: const { Span::new(6 * HOUR) },
            min_age: const { Span::new(30 * SECOND) },
            sample_bytes: const { Count::new(0) },
            max_blocks: const { Count::new(1 << 20) },
        }
    }
}

/// `[budget]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct BudgetConfig {
    pub target_percent: Percent,
    pub machine_percent: Percent,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self { target_percent: Percent::new(5.0), machine_percent: Percent::new(5.0) }
    }
}

/// What of the kernel's own memory is traced without being asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelMode {
    /// What grows.
    #[default]
    Adaptive,
    /// Nothing.
    Off,
}

impl KernelMode {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Adaptive => "adaptive",
            Self::Off => "off",
        }
    }
}

/// `[kernel]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct KernelConfig {
    pub mode: KernelMode,
    pub budget_percent: Percent,
    pub max_blocks: Count<1_000, { 1 << 26 }>,
}

impl Default for KernelConfig {
    fn default() -> Self {
        Self {
            mode: KernelMode::Adaptive,
            budget_percent: Percent::new(2.0),
            max_blocks: const { Count::new(1 << 18) },
        }
    }
}

/// `[server]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ServerConfig {
    pub socket: PathBuf,
    pub group: String,
    pub admin_group: String,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            socket: crate::protocol::SOCKET.into(),
            group: "leakd".into(),
            admin_group: String::new(),
        }
    }
}

#[cfg(test)]
mod tests;
