//! What a client asks.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::VERSION;

/// One request: `{"v":1,"ask":"status"}`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Request {
    /// [`VERSION`].
    pub v: u32,
    /// Given back with the answer, whatever it is; at most 64 bytes as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    /// What is asked.
    #[serde(flatten)]
    pub ask: Ask,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// The daemon's own state.
    Status {},
    /// The processes that are watched.
    Targets {
        /// Only this process.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pid: Option<u32>,
        /// Not only suspects and what is or was traced, but all processes.
        #[serde(default)]
        all: bool,
        /// With the time series of memory and of outstanding bytes.
        #[serde(default)]
        series: bool,
        /// The order.
        #[serde(default)]
        sort: Sort,
        /// At most so many; `None`: 1,000.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<usize>,
    },
    /// The call sites of processes under trace, or of their last trace.
    Report {
        /// Of which.
        #[serde(flatten)]
        which: Which,
        /// Call sites of each process; `None`: 100. At most 10,000.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        top: Option<usize>,
        /// Blocks younger than this rank no site; `None`: as configured.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        min_age_ms: Option<u64>,
    },
    /// From now on a line for each verdict and each step of the governor,
    /// until the client hangs up.
    Watch {},
    /// Put a process under trace until `detach`, or for some time.
    Attach {
        /// The process.
        pid: u32,
        /// When it started, in clock ticks since boot; refused if the pid is
        /// another process's by now. `None`: whoever has it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        start_time: Option<u64>,
        /// How long; `None`: until it is detached.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        for_ms: Option<u64>,
        /// Mean bytes between samples; `None`: as configured. 0: all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sample_bytes: Option<u64>,
    },
    /// Put the kernel's own memory under trace until `detach` of the pid 0, or
    /// for some time. Its report is that of the pid 0.
    Kernel {
        /// How long; `None`: until it is detached.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        for_ms: Option<u64>,
        /// Only this slab cache, as /proc/slabinfo calls it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cache: Option<String>,
        /// Only these kinds of memory: `kmalloc`, `cache`, `pages`, `percpu`,
        /// `vmalloc`; empty: all.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        kinds: Vec<String>,
        /// Only blocks that take at least so many bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        min_bytes: Option<u64>,
        /// Only blocks that take at most so many bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_bytes: Option<u64>,
    },
    /// Take a process's probes out; its last report is kept. It is left alone
    /// until somebody attaches to it.
    Detach {
        /// The process.
        pid: u32,
        /// When it started, in clock ticks since boot; refused if the pid is
        /// another process's by now. `None`: whoever has it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        start_time: Option<u64>,
    },
    /// Which blocks of a process under trace nothing can reach any more.
    Scan {
        /// The process.
        pid: u32,
        /// When it started, in clock ticks since boot; refused if the pid is
        /// another process's by now. `None`: whoever has it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        start_time: Option<u64>,
        /// Stop it, for so long at most, and look once; `None`: it runs on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_pause_ms: Option<u64>,
        /// Call sites; `None`: 100. At most 10,000.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        top: Option<usize>,
    },
    /// Change a setting until the next reload or restart.
    Set(Change),
}

/// Which processes a report is of: a pid, a unit or all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Which {
    /// This process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// With `pid`: only the one that started then, in clock ticks since boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<u64>,
    /// Those of this systemd unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// All.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

/// What `set` changes; what is left out stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// `adaptive`, `targets`, `all` or `off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// The budget of each target, in percent of its CPU time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_target_percent: Option<f64>,
    /// The budget of the machine, in percent of all CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_machine_percent: Option<f64>,
    /// Processes that are traced at once, those attached by hand included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_targets: Option<usize>,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<String>,
}

/// The order of a list of processes; ties by pid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sort {
    /// Fastest growing first.
    #[default]
    Growth,
    /// Most outstanding bytes first.
    Outstanding,
    /// What costs most first.
    Cost,
    /// Most anonymous memory first.
    Memory,
    /// By pid.
    Pid,
}

/// Why a line is no request.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Not even JSON, or not of the right shape.
    #[error("{0}; docs/PROTOCOL.md has the requests")]
    Wrong(String),
    /// Another version.
    #[error("version {0} of the protocol is not known here: this leakd speaks {VERSION}")]
    Version(String),
}

impl Request {
    /// A request of this version without an id.
    pub fn new(ask: Ask) -> Self {
        Self { v: VERSION, id: None, ask }
    }

    /// Reads a line. The id comes with the error too, if it was found.
    pub fn parse(line: &[u8]) -> Result<Self, (Option<Value>, RequestError)> {
        let wrong = |id: &Option<Value>, error: &dyn std::fmt::Display| {
            (id.clone(), RequestError::Wrong(error.to_string()))
        };
        let value: Value = serde_json::from_slice(line)
            .map_err(|error| wrong(&None, &format!("no JSON in this line: {error}")))?;
        let Value::Object(mut object) = value else {
            return Err(wrong(&None, &"a request is a JSON object"));
        };
        let id = object.remove("id").filter(|id| id.to_string().len() <= 64);
        match object.remove("v") {
            Some(version) if version == VERSION => {}
            Some(version) => {
                let mut version = version.to_string();
                version.truncate(version.char_indices().nth(16).map_or(version.len(), |(i, _)| i));
                return Err((id, RequestError::Version(version)));
            }
            None => return Err(wrong(&id, &format!("`v` is missing: say \"v\":{VERSION}"))),
        }
        let object = Value::Object(object);
        let ask = Ask::read(object).map_err(|error| wrong(&id, &error))?;
        Ok(Self { v: VERSION, id, ask })
    }
}

impl Ask {
    /// serde cannot refuse unknown fields beside flattened ones, and so
    /// `report` is read by itself.
    fn read(mut object: Value) -> Result<Self, String> {
        let which = if object["ask"] == "report" {
            let mut which = serde_json::Map::new();
            if let Some(object) = object.as_object_mut() {
                which.extend(
                    ["pid", "start_time", "unit", "all"].into_iter().filter_map(|name| {
                        object.remove(name).map(|value| (name.to_owned(), value))
                    }),
                );
                let allowed = ["ask", "top", "min_age_ms"];
                if let Some(name) = object.keys().find(|name| !allowed.contains(&name.as_str())) {
                    let name: String = name.chars().take(32).collect();
                    return Err(format!("unknown field `{name}`"));
                }
            }
            let which: Which =
                serde_json::from_value(Value::Object(which)).map_err(|e| e.to_string())?;
            let given = [which.pid.is_some(), which.unit.is_some(), which.all]
                .iter()
                .filter(|x| **x)
                .count();
            if given != 1 {
                return Err("a report is of a `pid`, of a `unit` or of `all`".to_owned());
            }
            if which.start_time.is_some() && which.pid.is_none() {
                return Err("`start_time` goes with a `pid`".to_owned());
            }
            Some(which)
        } else {
            None
        };
        let mut ask: Self = serde_json::from_value(object).map_err(|error| error.to_string())?;
        if let (Self::Report { which, .. }, Some(given)) = (&mut ask, which) {
            *which = given;
        }
        Ok(ask)
    }

    /// Whether it changes something, and so needs more than to read.
    pub fn changes(&self) -> bool {
        matches!(
            self,
            Self::Attach { .. }
                | Self::Kernel { .. }
                | Self::Detach { .. }
                | Self::Scan { .. }
                | Self::Set(_)
        )
    }
}
