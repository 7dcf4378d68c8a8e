//! How many CPUs per-CPU maps have values for.

use std::io;
use std::sync::OnceLock;

/// CPUs that the kernel keeps per-CPU values for, from the last number in
/// /sys/devices/system/cpu/possible (`0-3`, `0,2-7`).
pub fn possible_cpus() -> io::Result<usize> {
    static CPUS: OnceLock<usize> = OnceLock::new();
    if let Some(&cpus) = CPUS.get() {
        return Ok(cpus);
    }
    const PATH: &str = "/sys/devices/system/cpu/possible";
    let text = std::fs::read_to_string(PATH)?;
    let last = text.trim().rsplit(['-', ',']).next().and_then(|last| last.parse::<usize>().ok());
    let last =
        last.ok_or_else(|| io::Error::other(format!("cannot understand {PATH}: {text:?}")))?;
    Ok(*CPUS.get_or_init(|| last + 1))
}
