//! Processes in states that are hard on whoever looks at them.

use super::{blocks, document, is_from, scan, start};
use crate::{
    host::{scaled, stretched},
    support::{
        invocation::{Outcome, leakctl},
        process::Process,
        programs::program,
        wait_for,
    },
};
use nix::{
    sys::{
        ptrace::{self, Options},
        signal::Signal,
        wait::waitpid,
    },
    unistd::Pid,
};
use std::process::Command;

fn states(way: &str) -> Process {
    let mut command = Command::new(program("states"));
    command.arg(way);
    Process::start_ready(command)
}

/// Check that the ten blocks that are lost were found: up to two of them may look
/// held, by a register's old value or by the allocator.
fn assert_found(way: &str, outcome: &Outcome) {
    let document = document(outcome, 1);
    let lost: u64 = document["sites"]
        .as_array()
        .expect("sites")
        .iter()
        .filter(|site| is_from(site, "leak"))
        .map(|site| blocks(site, "definitely_lost"))
        .sum();
    assert!((8..=10).contains(&lost), "{way}: {document:#}");
}

/// Check that a terabyte of which next to nothing is used, processes and threads
/// that are made without end, memory that comes and goes, and a sleep that no signal
/// interrupts are no trouble.
#[test]
fn hard_states() {
    let ways = ["sparse", "threads", "vanishing", "uninterruptible", "forks", "plain"];
    // The last ones with a stop only, or by the other tests, where a start takes
    // seconds.
    for way in ways.into_iter().take(scaled(6, 4) as usize) {
        let mut process = states(way);
        assert_found(way, &scan(&mut process, &[]));
        process.close_stdin();
        assert!(process.wait().success(), "{way}");
    }
}

/// Check the same with a stop; of the process that cannot be stopped it is said,
/// and it runs on.
#[test]
fn hard_states_stopped() {
    let ways = ["forks", "threads", "sparse", "vanishing"];
    for way in ways.into_iter().take(scaled(4, 2) as usize) {
        let mut process = states(way);
        assert_found(way, &scan(&mut process, &["--stop", "--max-pause", "60s"]));
        process.close_stdin();
        assert!(process.wait().success(), "{way}");
    }
    let mut process = states("uninterruptible");
    let outcome = scan(&mut process, &["--stop", "--max-pause", "60s"]);
    assert_eq!(outcome.status, 2, "{outcome:?}");
    assert!(outcome.stderr.contains("did not stop"), "{outcome:?}");
    process.close_stdin();
    assert!(process.wait().success());
}

/// Check that a process that somebody else has stopped by a signal is scanned and
/// stays stopped, with --stop as well.
#[test]
fn stopped_by_a_signal() {
    for arguments in [&[][..], &["--stop", "--max-pause", "60s"]] {
        let mut process = states("plain");
        let pid = process.pid();
        let mut leakctl = start(pid, arguments);
        process.go();
        assert_eq!(process.line(), "made");
        process.signal(Signal::SIGSTOP);
        let is_stopped = || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
            status.contains("State:\tT (stopped)").then_some(())
        };
        wait_for("the process to stop", is_stopped);
        leakctl.signal(Signal::SIGINT);
        assert_found("stopped", &leakctl.outcome());
        wait_for("the process to be stopped still", is_stopped);
        process.signal(Signal::SIGCONT);
        process.close_stdin();
        assert!(process.wait().success());
    }
}

/// Check that a process under a debugger is scanned while it runs, and that --stop
/// says who is in the way.
#[test]
fn under_a_debugger() {
    let mut process = states("plain");
    let pid = process.pid();
    let mut leakctl = start(pid, &[]);
    process.go();
    assert_eq!(process.line(), "made");
    let tracee = Pid::from_raw(pid);
    ptrace::seize(tracee, Options::empty()).expect("root may");
    leakctl.signal(Signal::SIGINT);
    assert_found("traced", &leakctl.outcome());
    let mut leakctl = start(pid, &["--stop"]);
    leakctl.signal(Signal::SIGINT);
    leakctl.outcome().assert_refused_after_attach("tracer");
    ptrace::interrupt(tracee).expect("it is ours");
    waitpid(tracee, None).expect("it stops");
    ptrace::detach(tracee, None).expect("it has stopped");
    process.close_stdin();
    assert!(process.wait().success());
}

/// Check that a process that ends, or replaces its program, while it is recorded or
/// looked at is told in one line.
#[test]
fn ends_meanwhile() {
    // Within the time that a scan takes.
    let (steps, longest_us) = (scaled(10, 4), stretched(30_000));
    for step in 0..steps {
        let mut process = states("plain");
        let mut leakctl = start(process.pid(), &[]);
        process.go();
        assert_eq!(process.line(), "made");
        leakctl.signal(Signal::SIGINT);
        std::thread::sleep(std::time::Duration::from_micros(step * longest_us / steps));
        process.signal(Signal::SIGKILL);
        let outcome = leakctl.outcome();
        process.wait();
        if outcome.status == 2 {
            outcome.assert_refused_after_attach("ended");
        } else {
            // It was done before that.
            assert_found("ended", &outcome);
        }
    }
}

/// Check that what is no process to scan is refused.
#[test]
fn refused() {
    leakctl(["scan", "4194305", "--no-daemon"]).assert_refused(&["no process"]);
    leakctl(["scan", "1", "--no-daemon", "--max-pause", "1s"]).assert_usage("--stop");
}
