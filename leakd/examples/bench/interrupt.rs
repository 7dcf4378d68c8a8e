//! Ctrl-C and its like: all children end, and what we have made goes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

use crate::child;
use crate::scratch;
use crate::tracer::kernel_memory;

/// As shells have it: 128 and the signal's number.
const STATUS: i32 = 130;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on, a signal to end ends this program and all that it started.
pub fn watch() -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        INTERRUPTED.store(true, Ordering::SeqCst);
        child::end_all();
        // A cgroup can go when its last process has.
        thread::sleep(Duration::from_millis(200));
        kernel_memory::remove();
        scratch::remove();
        eprintln!("\ninterrupted");
        std::process::exit(STATUS);
    });
    Ok(())
}

/// Does not return if all is to end: for who finds its children gone.
pub fn wait_if_interrupted() {
    thread::sleep(Duration::from_millis(50));
    while INTERRUPTED.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_secs(1));
    }
}
