//! What the process notices of a scan: nothing, and if it is stopped, no more than
//! that; whatever happens to leakctl.

use super::{blocks, document, scan, start};
use crate::{
    host::{is_emulated, scaled},
    support::{
        PAUSE, probes::wait_until_nothing_left, process::Process, programs::program, wait_for,
    },
};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::process::Command;

/// A program that will make so many blocks of so many bytes.
fn large(blocks: u64, size: u64) -> Process {
    let mut command = Command::new(program("large"));
    command.args([blocks.to_string(), (blocks * size).to_string()]);
    Process::start_ready(command)
}

/// Ends the program that notices everything; gives what it noticed.
fn noticed(process: &mut Process) -> Value {
    process.close_stdin();
    assert!(process.wait().success());
    let rest = process.rest();
    let last = rest.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {rest}"))
}

/// States of a process' threads, by /proc.
fn states(pid: i32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let status = |entry: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(entry.ok()?.path().join("status")).ok()
    };
    let field = |text: String| {
        let wanted = |line: &&str| line.starts_with("State:") || line.starts_with("TracerPid:");
        text.lines().filter(wanted).collect::<Vec<_>>().join(" ")
    };
    tasks.filter_map(status).map(field).collect()
}

/// Nanoseconds that the hypervisor has taken from this machine's processors so far,
/// if it says so, to a hundredth of a second: threads cannot tell them from a pause.
fn stolen_ns() -> u64 {
    const TICK: u64 = 10_000_000;
    let text = std::fs::read_to_string("/proc/stat").expect("/proc is mounted");
    let all = text.lines().next().expect("a line for all processors");
    let stolen: u64 = all.split_whitespace().nth(8).expect("stolen time").parse().expect("ticks");
    stolen * TICK
}

/// Check that a program which watches out for tracers, for calls that fail with
/// EINTR, for signals that get lost or come twice and for pauses of a millisecond
/// notices nothing of a scan, and that its leak is found.
#[test]
fn a_wary_program_notices_nothing() {
    /// The longest that a thread may be kept from running.
    const LONGEST: u64 = 1_000_000;
    let stolen = stolen_ns();
    let mut process = Process::start_ready(Command::new(program("averse")));
    let mut leakctl = start(process.pid(), &[]);
    let before = process.truth();
    let leaked = scaled(500, 100);
    process.wait_until_leaked(before.blocks + leaked);
    leakctl.signal(Signal::SIGINT);
    let document = document(&leakctl.outcome(), 1);
    // The last ones may be in use, and one of them where a free block is led to.
    assert!(blocks(&document["total"], "definitely_lost") > leaked * 4 / 5, "{document:#}");
    assert_eq!(document["method"]["threads_stopped"], false, "{document:#}");
    let noticed = noticed(&mut process);
    assert_eq!(noticed["interrupted"], 0, "{noticed}");
    assert_eq!(noticed["traced"], 0, "{noticed}");
    assert_eq!(noticed["sent"], noticed["got"], "{noticed}");
    let longest = noticed["longest_pause_ns"].as_u64().expect("a number");
    eprintln!("the longest pause was {longest} ns");
    let unknown = match stolen_ns() {
        0 => 0,
        now => now - stolen + 10_000_000,
    };
    assert!(longest < LONGEST + unknown, "{noticed}, {unknown} ns may be stolen");
}

/// Check that a stop is noticed by that program, so that the test above can fail,
/// that no signal is lost by it, and that the leak is found.
#[test]
fn a_stop_loses_no_signal() {
    let mut process = Process::start_ready(Command::new(program("averse")));
    let (mut stopped, mut lost, mut longest) = (0, 0, 0);
    for _ in 0..scaled(10, 2) {
        let mut leakctl = start(process.pid(), &["--stop", "--max-pause", "60s"]);
        let before = process.truth();
        process.wait_until_leaked(before.blocks + 100);
        leakctl.signal(Signal::SIGINT);
        let document = document(&leakctl.outcome(), 1);
        let stopped_ns = document["method"]["stopped_ns"].as_u64().expect("a number");
        longest = stopped_ns.max(longest);
        stopped += u64::from(stopped_ns > 0);
        lost = blocks(&document["total"], "definitely_lost");
    }
    assert_eq!(stopped, scaled(10, 2));
    assert!(lost > 50);
    let noticed = noticed(&mut process);
    // Where looks are rare, the tracer may have come and gone between two.
    let by_calls = if is_emulated() { noticed["interrupted"].as_u64() } else { None };
    assert!(noticed["traced"].as_u64().max(by_calls) > Some(0), "{noticed}");
    assert_eq!(noticed["sent"], noticed["got"], "{noticed}");
    // Emulated, threads are stopped and go on one long after another.
    let share = if is_emulated() { 10 } else { 2 };
    assert!(noticed["longest_pause_ns"].as_u64() > Some(longest / share), "{noticed}: {longest}");
}

/// Check that a process runs on, untraced and without probes, after leakctl was
/// killed or interrupted at any moment of a scan, stopping or not.
#[test]
fn killed_at_any_moment() {
    let mut process = large(scaled(100_000, 2_000), 1000);
    let pid = process.pid();
    let mut made = false;
    for (number, (step, signal)) in [
        (0, Signal::SIGKILL),
        (10, Signal::SIGINT),
        (30, Signal::SIGKILL),
        (80, Signal::SIGTERM),
        (150, Signal::SIGKILL),
        (300, Signal::SIGINT),
        (600, Signal::SIGKILL),
    ]
    .into_iter()
    .enumerate()
    {
        // Where a start takes seconds, by turns.
        let stops = [number % 2 == 0, number % 2 != 0];
        for stop in &stops[..if is_emulated() { 1 } else { 2 }] {
            let arguments: &[&str] = if *stop { &["--stop", "--max-pause", "60s"] } else { &[] };
            let mut leakctl = start(pid, arguments);
            if !made {
                process.go();
                assert_eq!(process.line(), "made");
                made = true;
            }
            leakctl.signal(Signal::SIGINT);
            std::thread::sleep(std::time::Duration::from_millis(step));
            leakctl.try_signal(signal);
            leakctl.outcome();
            wait_for("all threads to run untraced", || {
                let states = states(pid);
                let free = |one: &String| one.contains("TracerPid:\t0") && !one.contains("stop");
                states.iter().all(free).then_some(())
            });
            wait_until_nothing_left(pid);
        }
    }
    std::thread::sleep(PAUSE);
    process.close_stdin();
    assert!(process.wait().success());
}

/// Check that a process that cannot be looked at in time is let go at once, with a
/// word about it.
#[test]
fn a_pause_has_its_limit() {
    let mut process = large(scaled(100_000, 2_000), 2000);
    let outcome = scan(&mut process, &["--stop", "--max-pause", "1ms"]);
    assert_eq!(outcome.status, 2, "{outcome:?}");
    assert!(outcome.stderr.contains("--max-pause"), "{outcome:?}");
    assert!(states(process.pid()).iter().all(|one| one.contains("TracerPid:\t0")));
    process.close_stdin();
    assert!(process.wait().success());
}

/// Check that of a large heap just what is lost is found.
#[test]
fn a_large_heap() {
    let blocks_made = scaled(300_000, 10_000);
    let mut process = large(blocks_made, 200);
    let document = document(&scan(&mut process, &[]), 1);
    let total = &document["total"];
    let lost = blocks(total, "definitely_lost") + blocks(total, "possibly_lost");
    assert!(lost.abs_diff(blocks_made / 10) <= 2, "{total:#}");
    // It runs all the time: many looks.
    assert!(document["method"]["rounds"].as_u64() > Some(1), "{document:#}");
    process.close_stdin();
    assert!(process.wait().success());
    let last: Value = serde_json::from_str(process.rest().trim()).expect("JSON");
    assert_eq!(last["leaked_blocks"], blocks_made / 10);
}
