//! Start, reload, end; what goes wrong with them.

use super::QUIET;
use crate::support::{
    leakd::Leakd,
    probes::{probes_present, wait_until_nothing_left},
    process::Process,
    programs::program,
    wait_for,
};
use nix::sys::signal::Signal;
use serde_json::json;
use std::{fs, process::Command};

/// Check that a second daemon on the same socket says one line and ends, and
/// that the first goes on.
#[test]
fn a_second_daemon_is_refused() {
    let first = Leakd::start(QUIET);
    let mut second = Process::start(first.command());
    let status = second.wait();
    let said = second.stderr_to_the_end();
    assert_eq!(status.code(), Some(2), "{said}");
    let told: Vec<&str> = said.lines().collect();
    assert_eq!(told.len(), 1, "{said}");
    assert!(told[0].contains("another leakd"), "{said}");
    assert_eq!(first.ask(json!({"ask": "status"}))["own"]["pid"], first.pid());
    assert_eq!(first.end(Signal::SIGTERM).0, 0);
}

/// Check that SIGTERM ends it with status 0, without its probes, and takes
/// the socket away.
#[test]
fn sigterm_ends_cleanly() {
    let mut target = Process::start_ready(Command::new(program("orders_no_debug")));
    let daemon = Leakd::start(QUIET);
    daemon.attach(target.pid());
    assert!(probes_present(target.pid()));
    let socket = daemon.socket();
    let (status, directory) = daemon.end(Signal::SIGTERM);
    assert_eq!(status, 0);
    assert!(!socket.exists());
    wait_until_nothing_left(target.pid());
    target.end();
    drop(directory);
}

/// Check that after kill -9, no probe is left, the target runs on, and the
/// next daemon takes the place of the stale socket.
#[test]
fn kill_9_leaves_nothing() {
    let mut target = Process::start_ready(Command::new(program("orders_no_debug")));
    let daemon = Leakd::start(QUIET);
    daemon.attach(target.pid());
    assert!(probes_present(target.pid()));
    let socket = daemon.socket();
    let (status, directory) = daemon.end(Signal::SIGKILL);
    assert_eq!(status, 128 + 9);
    assert!(socket.exists(), "it had no time to take it away");
    wait_until_nothing_left(target.pid());
    let before = target.truth();
    target.wait_until_leaked(before.blocks + 1);
    let next = Leakd::start_in(directory, QUIET);
    assert_eq!(next.ask(json!({"ask": "status"}))["own"]["pid"], next.pid());
    next.end(Signal::SIGTERM);
    target.end();
}

/// Check that a wrong configuration is refused at the start, with file, line
/// and key, and on reload leaves the old one in force.
#[test]
fn wrong_configuration() {
    let mut daemon = Leakd::start(QUIET);
    let wrong = "[watch]\nintervall = '1s'\n";
    daemon.write_config(wrong);
    let mut refused = Process::start(daemon.command());
    assert_eq!(refused.wait().code(), Some(2));
    let said = refused.stderr_to_the_end();
    assert_eq!(said.lines().count(), 1, "{said}");
    for part in ["leakd.toml:2", "watch.intervall", "`watch.interval`"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    daemon.signal(Signal::SIGHUP);
    daemon.wait_said("the configuration stays as it was");
    let status = daemon.ask(json!({"ask": "status"}));
    assert_eq!(status["mode"], "off", "{status}");
    assert!(status["config"]["error"].as_str().expect("an error").contains("watch.intervall"));
    daemon.write_config("mode = 'targets'");
    fs::create_dir(daemon.config().with_file_name("leakd.d")).expect("our own directory");
    let drop_in = daemon.config().with_file_name("leakd.d").join("x.toml");
    fs::write(drop_in, "[budget]\ntarget_percent = 3\n").expect("our own directory");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_said("configuration read again");
    let status = daemon.ask(json!({"ask": "status"}));
    assert_eq!(status["mode"], "targets");
    assert_eq!(status["governor"]["budget_target_percent"], 3.0);
    assert!(status["config"]["error"].is_null());
    assert_eq!(status["config"]["files"].as_array().map(Vec::len), Some(2));
    daemon.end(Signal::SIGTERM);
}

/// Check that it gives back every descriptor that a trace took, and every
/// probe, however often processes come and go.
#[test]
fn nothing_piles_up() {
    let daemon = Leakd::start(QUIET);
    let links = || {
        fs::read_dir(format!("/proc/{}/fd", daemon.pid()))
            .expect("it runs")
            .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .filter(|link| !link.to_string_lossy().starts_with("/proc/"))
            .count()
    };
    let mut counts = Vec::new();
    for _ in 0..5 {
        let mut target = Process::start_ready(Command::new(program("orders_no_debug")));
        daemon.attach(target.pid());
        let pid = target.pid();
        target.end();
        wait_for("the end of the trace", || {
            let status = daemon.ask(json!({"ask": "status"}));
            (status["tracing"]["targets"] == 0).then_some(())
        });
        let report = wait_for("its last report", || {
            let report = daemon.ask(json!({"ask": "report", "pid": pid}));
            (report["answer"] == "report").then_some(report)
        });
        assert_eq!(report["report"]["targets"][0]["ended"], "exited");
        counts.push(links());
    }
    eprintln!("descriptors after each trace: {counts:?}");
    // The last ones may be on their way out.
    wait_for("its descriptors to be given back", || (links() <= counts[1]).then_some(()));
    daemon.end(Signal::SIGTERM);
}
