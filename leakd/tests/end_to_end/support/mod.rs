//! What the tests share.

pub mod invocation;
pub mod leakd;
pub mod links;
pub mod mappings;
pub mod planted;
pub mod probes;
pub mod process;
pub mod programs;
pub mod report;
pub mod witness;

use std::{path::Path, time::Duration};

/// After this long something hangs. No test measures time with it.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// How long to sleep between two looks at a state that will come.
pub const PAUSE: Duration = Duration::from_millis(20);

/// Fails, with the reason, on a machine where the tests cannot work.
pub fn require_machine() {
    assert!(
        nix::unistd::Uid::effective().is_root(),
        "the end-to-end tests place uprobes and need root: run them by sudo"
    );
    for (path, what) in [
        ("/sys/bus/event_source/devices/uprobe/type", "uprobes (CONFIG_UPROBE_EVENTS)"),
        ("/sys/kernel/btf/vmlinux", "BTF (CONFIG_DEBUG_INFO_BTF)"),
    ] {
        assert!(Path::new(path).exists(), "this kernel has no {what}: {path} is not there");
    }
}

/// Looks again and again until `look` gives a value. Panics, naming `what`,
/// when it does not come.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = std::time::Instant::now();
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(PAUSE);
    }
}
