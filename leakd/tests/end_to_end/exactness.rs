//! Numbers, to the byte.

use crate::host::scaled;
use crate::support::{
    invocation::Leakctl, probes::assert_nothing_left, process::Process, programs::program,
    report::Report,
};
use serde_json::Value;
use std::process::Command;

/// Lets a go/finish program do its work under leakctl; gives its truth.
fn trace(command: Command) -> (Report, Value, i32) {
    let mut process = Process::start_ready(command);
    let pid = process.pid();
    let leakctl = Leakctl::attach(pid, &["--min-age", "0s", "--top", "1000"]);
    process.go();
    let truth = process.json_line();
    let report = leakctl.interrupt();
    assert_nothing_left(pid);
    process.end();
    (report, truth, pid)
}

/// Compares the totals and each function's blocks and bytes.
fn assert_equal(report: &Report, truth: &Value, pid: i32) {
    let target = report.target(pid);
    assert_eq!(target.lost(), 0, "nothing may be lost: {}", target.0["coverage"]);
    for (function, expected) in truth["sites"].as_object().expect("the truth has sites") {
        let expected =
            (expected[0].as_u64().expect("blocks"), expected[1].as_u64().expect("bytes"));
        assert_eq!(target.outstanding_in(function), expected, "{function}: {:#}", target.0);
    }
    let expected = (
        truth["leaked_blocks"].as_u64().expect("blocks"),
        truth["leaked_bytes"].as_u64().expect("bytes"),
    );
    assert_eq!(target.outstanding(), expected, "outstanding in all: {:#}", target.0);
}

/// Check that of 1,000,000 blocks from 16 threads, many freed by another
/// thread, exactly the 12,345 kept ones are outstanding: twenty of twenty.
#[test]
fn a_million_blocks_twenty_times() {
    let blocks = scaled(1_000_000, 20_000);
    for run in 1..=scaled(20, 1) {
        let mut command = Command::new(program("exactness"));
        command.env("BLOCKS", blocks.to_string());
        let (report, truth, pid) = trace(command);
        assert_eq!(truth["leaked_blocks"], blocks * 12345 / 1_000_000, "run {run}");
        assert_equal(&report, &truth, pid);
        let seen = report.target(pid).coverage("allocations");
        assert!(seen >= blocks, "run {run}: {seen} allocations seen of {blocks}");
    }
}

/// Check every outcome of every allocating function: moved, in place and
/// failed realloc, failed posix_memalign, overflowing calloc, NULL results.
#[test]
fn every_outcome() {
    let (report, truth, pid) = trace(Command::new(program("outcomes")));
    assert_equal(&report, &truth, pid);
}
