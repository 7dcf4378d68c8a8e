//! What the figures were measured on.

use std::fs;
use std::thread;

use serde_json::{Value, json};

/// The machine, and how busy it is.
#[derive(Clone, Debug)]
pub struct Machine {
    processor: String,
    processors: usize,
    kernel: String,
}

impl Machine {
    /// Asks /proc.
    pub fn ask() -> Self {
        let processor = fs::read_to_string("/proc/cpuinfo")
            .ok()
            .and_then(|text| {
                let line = text.lines().find(|line| line.starts_with("model name"))?;
                Some(line.split_once(':')?.1.trim().to_owned())
            })
            .unwrap_or_else(|| "unknown processor".to_owned());
        Self {
            processor,
            processors: thread::available_parallelism().map_or(1, usize::from),
            kernel: leakd::preflight::release(),
        }
    }

    /// One line.
    pub fn line(&self) -> String {
        format!("{}, {} CPUs, Linux {}", self.processor, self.processors, self.kernel)
    }

    /// As an object of JSON.
    pub fn json(&self) -> Value {
        json!({
            "processor": self.processor,
            "processors": self.processors,
            "kernel": self.kernel,
        })
    }
}

/// Programs that want a CPU, on average over the last minute.
pub fn load() -> f64 {
    fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(f64::NAN)
}
