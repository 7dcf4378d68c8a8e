//! `--check-frees`: blocks that are freed twice, and what is no block.

use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    host::{is_emulated, scaled},
    support::{
        invocation::{Leakctl, Outcome},
        process::Process,
        programs::program,
        report::{Report, bare_name},
    },
};

/// glibc without its caches for threads, which find most double frees.
const WITHOUT_CACHE: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0");

/// Runs a program under `leakctl run --check-frees`: the wrong frees that are told of.
fn run(program: &Path, arguments: &[&str], rounds: &str) -> (Outcome, Vec<Value>) {
    let folder = tempfile::tempdir().expect("cannot make a folder");
    let file = folder.path().join("report.json");
    let mut command = Leakctl::command();
    command.args(["run", "--check-frees", "--json"]).args(Leakctl::tables());
    command.arg("--output").arg(&file).arg("--");
    command.arg(program).args(arguments).env("ROUNDS", rounds).envs([WITHOUT_CACHE]);
    let outcome = Leakctl::start_command(command).outcome();
    let text = std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("no report was written: {error}; {outcome:?}"));
    let report = Report::parse(&text);
    let target = report.targets().next().expect("a target");
    (outcome, target.0["bad_frees"].as_array().expect("it was looked for them").clone())
}

/// The functions of a stack, innermost first.
fn functions(stack: &Value) -> Vec<&str> {
    let frames = stack["stack"].as_array().unwrap_or_else(|| panic!("no stack: {stack}"));
    frames.iter().map(|frame| bare_name(frame["function"].as_str().unwrap_or("?"))).collect()
}

/// Check that blocks that are freed twice are told of with all three stacks, each
/// kind once, and counted; also where the C library is part of the program.
#[test]
fn freed_twice() {
    for name in ["frees", "frees_static"] {
        freed_twice_in(name);
    }
}

fn freed_twice_in(name: &str) {
    let (outcome, found) = run(&program(name), &["twice"], "1");
    assert_eq!(outcome.status, 0, "{outcome:?}");
    // Two places in a loop that free again: one, of one block or the other.
    let counts: Vec<u64> = found.iter().map(|bad| bad["count"].as_u64().unwrap()).collect();
    assert_eq!(counts.iter().sum::<u64>(), 6, "{found:#?}");
    for bad in &found {
        assert_eq!(bad["kind"], "double_free");
        assert_eq!(bad["size_bytes"], 40);
        assert_eq!(functions(&bad["freed_again_at"])[..3], ["free_again", "twice", "main"]);
        assert_eq!(functions(&bad["freed_at"])[..3], ["free_first", "twice", "main"]);
        assert_eq!(functions(&bad["allocated_at"])[..3], ["make_block", "twice", "main"]);
        assert_eq!(bad["thread"], bad["freed_thread"]);
        assert!(bad["freed_before_ns"].as_u64().unwrap() > 0);
    }
}

/// Check that it is told of when the C library ends the program because of it.
#[test]
fn freed_twice_and_aborted() {
    let (outcome, found) = run(&program("frees"), &["aborted"], "1");
    assert_eq!(outcome.status, 128 + libc::SIGABRT, "{outcome:?}");
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(functions(&found[0]["freed_at"])[..2], ["free_first", "aborted"]);
    assert_eq!(functions(&found[0]["freed_again_at"])[..2], ["free_again", "aborted"]);
}

/// Check that a free of what is no block is told of where every allocation was
/// seen.
#[test]
fn no_block() {
    let (_, found) = run(&program("frees"), &["inside"], "1");
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0]["kind"], "wrong_free");
    assert_eq!(functions(&found[0]["freed_again_at"])[..2], ["free_again", "inside"]);
    assert_eq!(found[0]["freed_at"], Value::Null);
}

/// Check that realloc counts as what ends a block, and not an older free at the same
/// address; and that it is told of where the block was gone before.
#[test]
fn reallocated() {
    for (what, freed_at, again_at) in
        [("moved", "move_block", "free_again"), ("revived", "free_first", "move_block")]
    {
        let (outcome, found) = run(&program("frees"), &[what], "1");
        assert_eq!(found.len(), 1, "{what}: {found:#?}; {outcome:?}");
        assert_eq!(found[0]["kind"], "double_free", "{what}");
        assert_eq!(functions(&found[0]["allocated_at"])[..2], ["make_block", what]);
        assert_eq!(functions(&found[0]["freed_at"])[..2], [freed_at, what]);
        assert_eq!(functions(&found[0]["freed_again_at"])[..2], [again_at, what]);
    }
}

/// Check that nothing is found in programs without fault, of several languages and
/// C libraries.
#[test]
fn honest_programs() {
    let (outcome, found) = run(&program("frees"), &["honest"], "1");
    assert_eq!((outcome.status, found.len()), (0, 0), "{found:#?}");
    // The last ones alone where a start takes seconds: how the others are probed does
    // not change with what stands at their free.
    let names = [
        "orders",
        "orders_musl",
        "orders_static",
        "orders_rs",
        "threads_static",
        "orders_cpp",
        "threads",
    ];
    for name in &names[if is_emulated() { 5 } else { 0 }..] {
        let (outcome, found) = run(&program(name), &[], "100");
        assert_eq!((outcome.status, found.len()), (0, 0), "{name}: {found:#?}");
    }
    let python = ["-c", "import json, re, decimal; json.dumps({str(i): [i] for i in range(9999)})"];
    let (outcome, found) = run(Path::new("/usr/bin/python3"), &python, "");
    assert_eq!((outcome.status, found.len()), (0, 0), "{found:#?}");
}

/// Check that a process that runs already can be looked at as well, but not for
/// what it may have allocated before.
#[test]
fn attached() {
    let ways = [("twice", 6), ("revived", 1), ("inside", 0), ("moved", 1)];
    for (what, expected) in ways.into_iter().take(scaled(4, 2) as usize) {
        let mut command = Command::new(program("frees"));
        command.arg(what).envs([WITHOUT_CACHE]);
        let mut process = Process::start_ready(command);
        let pid = process.pid();
        let mut leakctl = Leakctl::attach(pid, &["--check-frees"]);
        leakctl.wait_attached();
        process.go();
        process.close_stdin();
        let report = Report::parse(&leakctl.outcome().stdout);
        let target = report.targets().next().expect("a target");
        let found = target.0["bad_frees"].as_array().expect("it was looked for them");
        let count: u64 = found.iter().map(|bad| bad["count"].as_u64().unwrap()).sum();
        assert_eq!(count, expected, "{what}: {found:#?}");
    }
}

/// Check that it is said that it was not looked for them, and that a sampled trace
/// cannot.
#[test]
fn not_looked_for() {
    let mut process = Process::start_ready(Command::new(program("orders")));
    let mut leakctl = Leakctl::attach(process.pid(), &[]);
    leakctl.signal(Signal::SIGINT);
    let report = Report::parse(&leakctl.outcome().stdout);
    assert_eq!(report.targets().next().expect("a target").0["bad_frees"], Value::Null);
    process.end();
    let mut refused = Leakctl::command();
    refused.args(["attach", "1", "--check-frees", "--sample-bytes", "4096"]);
    Leakctl::start_command(refused).outcome().assert_usage("--sample-bytes");
}
