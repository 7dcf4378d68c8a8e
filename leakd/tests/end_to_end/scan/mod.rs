//! `leakctl scan`: classes of blocks, on processes of every kind.

mod graphs;
mod moving;
mod states;
mod unnoticed;

use crate::support::{
    invocation::{Leakctl, Outcome},
    process::Process,
};
use serde_json::Value;

/// Starts `leakctl scan PID` and waits until it records.
pub fn start(pid: i32, arguments: &[&str]) -> Leakctl {
    let pid = pid.to_string();
    let mut all = vec!["scan", &pid, "--no-daemon", "--json", "--for", "1h"];
    all.extend(Leakctl::tables());
    all.extend(arguments);
    let mut leakctl = Leakctl::start(all);
    leakctl.wait_attached();
    leakctl
}

/// Has a program make its blocks, once they are recorded, and scans it.
pub fn scan(process: &mut Process, arguments: &[&str]) -> Outcome {
    let mut leakctl = start(process.pid(), arguments);
    process.go();
    assert_eq!(process.line(), "made");
    // Ends the recording, as Ctrl-C does: now it looks.
    leakctl.signal(nix::sys::signal::Signal::SIGINT);
    leakctl.outcome()
}

/// The JSON document of a scan, after a look at the exit status.
pub fn document(outcome: &Outcome, status: i32) -> Value {
    assert_eq!(outcome.status, status, "leakctl's exit status; it said: {outcome:?}");
    let document: Value = serde_json::from_str(&outcome.stdout)
        .unwrap_or_else(|error| panic!("{error}: {outcome:?}"));
    assert_eq!(document["schema"], "leakd.scan/1");
    document
}

/// Blocks of a class, in a document or one of its call sites.
pub fn blocks(of: &Value, class: &str) -> u64 {
    of[class]["blocks"].as_u64().unwrap_or_else(|| panic!("{class}: {of}"))
}

/// Whether some frame of a call site is of this function.
pub fn is_from(site: &Value, function: &str) -> bool {
    let stack = site["stack"].as_array().expect("a stack");
    stack.iter().any(|frame| frame["function"] == function)
}
