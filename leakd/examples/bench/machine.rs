//! What the figures were measured on.

use std::fs;
use std::thread;

use serde::{Deserialize, Serialize};

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// How many CPUs there are for us.
    pub processors: usize,
    /// The kernel's release.
    pub kernel: String,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Whether a hypervisor is below: traps and exits are dearer there.
    pub virtual_machine: bool,
}

impl Machine {
    /// Asks /proc.
    pub fn ask() -> Self {
        let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let value = |key: &str| {
            let line = about.lines().find(|line| line.starts_with(key))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kilobytes = memory.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
        Self {
            processor: value("model name")
                .map_or_else(|| "unknown processor".to_owned(), |name| name.replace("(R)", "")),
            processors: thread::available_parallelism().map_or(1, usize::from),
            kernel: leakd::preflight::release(),
            memory_bytes: kilobytes.unwrap_or(0) << 10,
            virtual_machine: value("flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
        }
    }

    /// One line.
    pub fn line(&self) -> String {
        format!(
            "{}, {} CPUs, {} GiB, {}Linux {}",
            self.processor,
            self.processors,
            self.memory_bytes.div_ceil(1 << 30),
            if self.virtual_machine { "a virtual machine, " } else { "" },
            self.kernel
        )
    }
}

/// Programs that want a CPU, on average over the last minute.
pub fn load() -> f64 {
    fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(f64::NAN)
}
