//! What the daemon traces by itself, and what that may cost.

use super::{QUIET, QUIET_WITHOUT_LIMIT};
use crate::support::{
    leakd::Leakd,
    probes::{assert_nothing_left, probes_present},
    process::Process,
    programs::{private_copy, program},
    wait_for,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::process::Command;

/// Check that what is counted through the daemon is what the program says.
#[test]
fn counts_exactly() {
    let daemon = Leakd::start(QUIET_WITHOUT_LIMIT);
    let mut target = Process::start_ready(Command::new(program("orders")));
    daemon.attach(target.pid());
    let before = target.truth();
    target.wait_until_leaked(before.blocks + 100);
    let report = daemon.ask(json!({"ask": "report", "pid": target.pid(), "min_age_ms": 0}));
    let after = target.truth();
    assert_eq!(report["report"]["targets"][0]["min_age_ns"], 0);
    // A trace of some seconds knows no block that is hours old.
    let hours = json!({"ask": "report", "pid": target.pid(), "min_age_ms": 36_000_000});
    let hours = daemon.ask(hours);
    let young = &hours["report"]["targets"][0];
    let (used, lasted) = (young["min_age_ns"].as_u64(), young["duration_ns"].as_u64());
    assert!(used > Some(0) && used < lasted, "{used:?} of {lasted:?}");
    assert_eq!(hours["report"]["min_age_ns"], 36_000_000_000_000u64);
    let site = &report["report"]["targets"][0]["sites"][0];
    let blocks = site["outstanding_blocks"].as_u64().expect("a number");
    assert!(site["stack"].to_string().contains("leak_orders"), "{site}");
    assert!(blocks >= 100 && blocks <= after.blocks - before.blocks + 100, "{blocks}");
    let view = daemon.wait_watched(target.pid());
    assert_eq!(view["stage"], "traced");
    assert_eq!(view["trace"]["by_hand"], true);
    assert_eq!(view["trace"]["governor"]["step"], "full");
    target.end();
    daemon.end(Signal::SIGTERM);
}

/// Check that a target which allocates all the time is brought under its
/// budget: by steps that are told, with coverage that says so, and with the
/// code as it was between two windows.
#[test]
fn the_budget_holds() {
    let daemon =
        Leakd::start(&format!("{QUIET}\n[budget]\ntarget_percent = 2\nmachine_percent = 50"));
    let mut target = Process::start({
        let mut command = Command::new("python3");
        command.args(["-c", "import os\nprint('ready', os.getpid(), flush=True)\nwhile True:\n  x=[bytearray(600) for _ in range(100)]"]);
        command
    });
    let pid = target.wait_ready();
    let mut events = std::io::BufRead::lines(std::io::BufReader::new({
        let mut stream = daemon.connect();
        std::io::Write::write_all(&mut stream, b"{\"v\":1,\"ask\":\"watch\"}\n").expect("it reads");
        stream
    }));
    daemon.attach(pid);
    let step = loop {
        let line = events.next().expect("it goes on").expect("a line");
        let event: Value = serde_json::from_str(&line).expect("JSON");
        if event["event"]["kind"] == "governor" {
            break event;
        }
    };
    assert_eq!(step["event"]["governor"]["step"], "windows", "{step}");
    // What a trap costs there is measured in the first ones.
    let view = wait_for("three windows, within the budget", || {
        let view = daemon.wait_watched(pid);
        let governor = &view["trace"]["governor"];
        let cost = governor["cost_percent"].as_f64().expect("a number");
        (governor["windows"].as_u64() >= Some(3) && cost <= 2.0).then_some(view)
    });
    let governor = &view["trace"]["governor"];
    assert!(governor["open_percent"].as_f64().expect("a number") < 50.0, "{view}");
    wait_for("a window that is closed", || {
        let closed = !probes_present(pid);
        closed.then(|| assert_nothing_left(pid))
    });
    let report = daemon.ask(json!({"ask": "report", "pid": pid}));
    let windows = &report["report"]["targets"][0]["coverage"]["windows"];
    assert!(windows["count"].as_u64() >= Some(3), "{windows}");
    let duration = report["report"]["targets"][0]["duration_ns"].as_u64();
    assert!(windows["open_ns"].as_u64() < duration, "{windows}");
    assert!(daemon.ask(json!({"ask": "status"}))["governor"]["steps_down"].as_u64() >= Some(1));
    target.signal(Signal::SIGKILL);
    target.wait();
    daemon.end(Signal::SIGTERM);
}

/// Check that a program which leaks 1 MiB a minute, among others that do not,
/// becomes a suspect, is traced, and has its line named, without any command;
/// and that it alone is held to grow.
#[test]
fn a_leak_is_found_by_itself() {
    let leaking = Process::start_ready({
        let mut command = Command::new(program("slow_leak"));
        command.env("LEAK", "1");
        command
    });
    let honest = Process::start_ready(Command::new(program("slow_leak")));
    let daemon = Leakd::start("[watch]\nstartup = '0s'\n[include]\nexe = ['*/slow_leak']");
    let started = std::time::Instant::now();
    let view = loop {
        let view = daemon.wait_watched(leaking.pid());
        let place = &view["trace"]["evidence"]["sites"][0]["place"];
        if place.as_str().is_some_and(|place| !place.is_empty()) {
            break view;
        }
        // Were it not found at all, this would never end.
        assert!(started.elapsed().as_secs() < 1200, "{view}");
        std::thread::sleep(std::time::Duration::from_secs(1));
    };
    assert!(view["verdict"] == "growing" || view["verdict"] == "leak", "{view}");
    let place = view["trace"]["evidence"]["sites"][0]["place"].as_str().expect("a place");
    assert!(place.contains("leak_slowly") && place.contains("slow_leak.c:"), "{view}");
    let other = daemon.wait_watched(honest.pid());
    assert!(other["verdict"] != "growing" && other["verdict"] != "leak", "{other}");
    assert_ne!(other["stage"], "traced", "{other}");
    eprintln!("named after {} s", started.elapsed().as_secs());
    daemon.end(Signal::SIGTERM);
    for mut process in [leaking, honest] {
        process.end();
    }
}

/// Check that with mode "targets", what is included is traced, what is
/// excluded is not, and that it never traces itself.
#[test]
fn named_targets() {
    let folder = tempfile::tempdir().expect("a directory");
    let name = private_copy("orders_no_debug", &folder);
    let wanted = Process::start_ready(Command::new(&name));
    let excluded = Process::start_ready(Command::new(&name));
    let config = format!(
        "mode = 'targets'\nlog_level = 'debug'\n[watch]\ninterval = '500ms'\n\
         [include]\nexe = [{name:?}, '*/leakd']\n[exclude]\npid = [{}]",
        excluded.pid()
    );
    let daemon = Leakd::start(&config);
    wait_for("the trace", || {
        let stage = daemon.process(wanted.pid())?["stage"].clone();
        (stage == "traced").then_some(())
    });
    assert_eq!(daemon.wait_watched(excluded.pid())["stage"], "excluded");
    assert_nothing_left(excluded.pid());
    let own = daemon.wait_watched(daemon.pid());
    assert_eq!(own["stage"], "excluded", "{own}");
    let done = daemon.ask(json!({"ask": "set", "mode": "off"}));
    assert_eq!(done["answer"], "done");
    wait_for("the end of the trace", || (!probes_present(wanted.pid())).then_some(()));
    daemon.end(Signal::SIGTERM);
    for mut process in [wanted, excluded] {
        process.end();
    }
}

/// Check that a client which names a process by pid and start time reaches no
/// other one that has the pid by now.
#[test]
fn a_reused_pid_is_left_alone() {
    let daemon = Leakd::start(QUIET_WITHOUT_LIMIT);
    let mut target = Process::start_ready(Command::new(program("orders_no_debug")));
    let pid = target.pid();
    let start_time = daemon.wait_watched(pid)["start_time"].as_u64().expect("a number");
    let other = start_time - 1;
    let refused = daemon.ask(json!({"ask": "attach", "pid": pid, "start_time": other}));
    assert_eq!(refused["code"], "not_found", "{refused}");
    assert_nothing_left(pid);
    let attached = daemon.ask(json!({"ask": "attach", "pid": pid, "start_time": start_time}));
    assert_eq!(attached["start_time"], start_time, "{attached}");
    for ask in ["detach", "report"] {
        let refused = daemon.ask(json!({"ask": ask, "pid": pid, "start_time": other}));
        assert_eq!(refused["code"], "not_found", "{refused}");
    }
    // On a slow machine it may be between two windows.
    wait_for("its probes", || probes_present(pid).then_some(()));
    let report = daemon.ask(json!({"ask": "report", "pid": pid, "start_time": start_time}));
    assert_eq!(report["report"]["targets"][0]["pid"], pid, "{report}");
    let done = daemon.ask(json!({"ask": "detach", "pid": pid, "start_time": start_time}));
    assert_eq!(done["answer"], "done", "{done}");
    target.end();
    daemon.end(Signal::SIGTERM);
}
