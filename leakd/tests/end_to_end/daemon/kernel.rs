//! The kernel's own memory as a target of the daemon.

use super::QUIET;
use crate::{
    kernel::{FILE, assert_held, held_within, holder, programs_of},
    support::{
        invocation::Leakctl, leakd::Leakd, process::Process, programs::source_folder, wait_for,
    },
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::process::Command;

/// Traces nothing by itself, and lets a client have everything.
const ALL: &str = "[kernel]\nbudget_percent = 100\n[budget]\nmachine_percent = 100";

fn daemon() -> Leakd {
    Leakd::start(&format!("{QUIET}\n{ALL}"))
}

/// The report on the kernel, with the youngest blocks.
fn report(daemon: &Leakd) -> Value {
    let answer = daemon.ask(json!({"ask": "report", "pid": 0, "min_age_ms": 0, "top": 10_000}));
    assert_eq!(answer["answer"], "report", "{answer}");
    assert_eq!(answer["report"]["targets"][0]["pid"], 0);
    answer["report"]["targets"][0].clone()
}

fn ends(daemon: Leakd) {
    daemon.end(Signal::SIGTERM);
}

/// A program that makes the kernel allocate until it is killed.
fn program(kind: &str) -> Process {
    let mut command = Command::new("python3");
    Process::start_ready({
        command.arg(source_folder().join("kernel_memory.py")).arg(kind);
        command
    })
}

/// Check that a client has it traced exactly, that one does at a time, that it is
/// a target like any other meanwhile, and that its last report is kept while
/// nothing else is.
#[test]
fn asked_for() {
    let daemon = daemon();
    let mut process = holder("eventfd", 400, 300);
    let before = programs_of(daemon.pid());
    let attached = daemon.ask(json!({"ask": "kernel", "kinds": ["kmalloc", "cache"]}));
    assert_eq!(attached["answer"], "kernel_attached", "{attached}");
    assert_eq!(attached["traced"], json!(["kmalloc", "cache"]));
    assert!(programs_of(daemon.pid()).len() >= before.len() + 5);
    assert_eq!(daemon.ask(json!({"ask": "kernel"}))["code"], "busy");
    process.go();
    assert_eq!(process.line(), "held");
    let target = report(&daemon);
    assert_held(&target, &process, "eventfd", "kmalloc", 300);
    assert_held(&target, &process, FILE, "cache", 300);

    let status = daemon.ask(json!({"ask": "status"}));
    assert_eq!(status["kernel_tracing"]["scope"], "kmalloc, cache");
    assert_eq!(status["kernel_tracing"]["step"], "full");
    let view = daemon.process(0).expect("the kernel");
    assert_eq!((&view["stage"], &view["comm"]), (&json!("traced"), &json!("kernel")));
    assert_eq!(view["trace"]["by_hand"], true);
    assert!(view["trace"]["allocations"].as_u64() >= Some(800), "{view}");
    assert!(view["anonymous_bytes"].as_u64() > Some(1 << 20), "{view}");

    assert_eq!(daemon.ask(json!({"ask": "detach", "pid": 0}))["answer"], "done");
    assert_eq!(daemon.ask(json!({"ask": "detach", "pid": 0}))["code"], "not_found");
    assert_eq!(programs_of(daemon.pid()), before);
    assert_held(&report(&daemon), &process, "eventfd", "kmalloc", 300);
    assert_eq!(daemon.process(0).expect("the kernel")["trace"]["active"], false);
    ends(daemon);
}

/// Check that what cannot be is refused, that a trace ends when its time is over,
/// and that without one there is no report.
#[test]
fn refused_and_ended() {
    let daemon = daemon();
    for wrong in [
        json!({"ask": "kernel", "kinds": ["heap"]}),
        json!({"ask": "kernel", "cache": "no_such_cache"}),
        json!({"ask": "kernel", "cache": "../dentry"}),
        json!({"ask": "kernel", "min_bytes": 2, "max_bytes": 1}),
        json!({"ask": "kernel", "cache": "filp", "kinds": ["pages"]}),
    ] {
        assert_eq!(daemon.ask(wrong.clone())["code"], "bad_request", "{wrong}");
    }
    assert_eq!(daemon.ask(json!({"ask": "report", "pid": 0}))["code"], "not_found");
    assert_eq!(daemon.ask(json!({"ask": "attach", "pid": 0}))["answer"], "error");
    daemon.ask(json!({"ask": "kernel", "cache": "filp", "for_ms": 1}));
    wait_for("the trace to end", || {
        let view = daemon.process(0)?;
        (view["trace"]["active"] == false && view["trace"]["scope"] == "cache filp").then_some(())
    });
    assert_eq!(report(&daemon)["kernel"]["cache"], "filp");
    ends(daemon);
}

/// Check that a kernel which allocates all the time is brought under its budget,
/// by windows that are told and that the coverage shows.
#[test]
fn the_budget_holds() {
    const BUDGET: f64 = 3.0;
    let config =
        format!("{QUIET}\n[kernel]\nbudget_percent = {BUDGET}\n[budget]\nmachine_percent = 50");
    let mut daemon = Leakd::start(&config);
    let process = program("busy");
    assert_eq!(daemon.ask(json!({"ask": "kernel"}))["answer"], "kernel_attached");
    daemon.wait_said("less is recorded of the kernel (full, then windows)");
    let view = wait_for("three windows, within the budget", || {
        let view = daemon.process(0)?;
        let governor = &view["trace"]["governor"];
        let number = |name: &str| governor[name].as_f64().expect("a number");
        let is_within = number("cost_percent") <= BUDGET && number("open_percent") < 60.0;
        (governor["windows"].as_u64() >= Some(3) && is_within).then_some(view)
    });
    let governor = &view["trace"]["governor"];
    assert_eq!(governor["step"], "windows", "{governor}");
    let target = report(&daemon);
    let windows = &target["coverage"]["windows"];
    assert!(windows["count"].as_u64() >= Some(3), "{windows}");
    assert!(windows["open_ns"].as_u64() < target["duration_ns"].as_u64(), "{windows}");
    drop(process);
    ends(daemon);
}

/// Check that `leakctl kernel` goes through the daemon, which says so, and that
/// it runs a trace of its own where somebody else has one.
#[test]
fn leakctl_goes_through_it() {
    let daemon = daemon();
    let socket = daemon.socket();
    let socket = socket.to_str().expect("a path");
    let arguments = [
        "kernel",
        "--json",
        "--for",
        "1h",
        "--min-age",
        "1ms",
        "--only",
        "slab",
        "--socket",
        socket,
    ];
    let mut one = Leakctl::start(arguments);
    one.wait_said("through leakd");
    let mut other = Leakctl::start(arguments);
    other.wait_said("not through leakd: the kernel's memory is under trace for somebody else");
    other.wait_said("attached to the kernel:");
    let mut process = holder("eventfd", 400, 300);
    process.go();
    assert_eq!(process.line(), "held");
    for leakctl in [&mut one, &mut other] {
        leakctl.signal(Signal::SIGINT);
        let outcome = leakctl.outcome();
        assert_eq!(outcome.status, 1, "{outcome:?}");
        let report: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
        assert_held(&report["targets"][0], &process, "eventfd", "kmalloc", 300);
    }
    assert_eq!(daemon.process(0).expect("the kernel")["trace"]["active"], false);
    ends(daemon);
}

/// Check that a kernel which leaks becomes a suspect, that only the cache that
/// grows is traced, within the kernel's budget that there is by default, and that the
/// function which leaks is named, without any command.
#[test]
fn a_leak_is_found_by_itself() {
    // Emulated, leakd's own work alone takes more than the machine's budget.
    let daemon = Leakd::start(
        "[watch]\ninterval = '2s'\n[exclude]\ncomm = ['*']\n[budget]\nmachine_percent = 50",
    );
    let leaking = program("leak");
    let started = std::time::Instant::now();
    let view = loop {
        let view = daemon.process(0);
        let place = |view: &Value| {
            let place = &view["trace"]["evidence"]["sites"][0]["place"];
            place.as_str().is_some_and(|place| place.contains("newary"))
        };
        if let Some(view) = view.clone().filter(place) {
            break view;
        }
        // Were it not found at all, this would never end.
        assert!(started.elapsed().as_secs() < 1200, "{view:?}\n{}", daemon.log());
        std::thread::sleep(std::time::Duration::from_secs(1));
    };
    assert_eq!(view["verdict"], "growing", "{view}");
    assert_eq!(view["trace"]["by_hand"], false, "{view}");
    let scope = view["trace"]["scope"].as_str().expect("a scope");
    assert!(scope.starts_with("cache kmalloc-") && scope.ends_with("4k"), "{scope}");
    let governor = &view["trace"]["governor"];
    let (cost, budget) = (governor["cost_percent"].as_f64(), governor["budget_percent"].as_f64());
    assert!(cost <= budget && budget <= Some(2.0), "{governor}");
    assert!(held_within(4, &report(&daemon), &leaking, "newary", "kmalloc") > 0);
    assert!(daemon.log().contains("the kernel holds more and more memory"), "{}", daemon.log());
    drop(leaking);
    ends(daemon);
}
