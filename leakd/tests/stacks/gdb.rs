//! Stacks against those that gdb finds, frame by frame.
//!
//! A program runs twice, once under gdb and once under trace. It makes the
//! same calls in both runs, so both must have seen the same stacks, each as
//! often as the other. Where code is differs between the runs; frames are
//! compared by file and offset.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::support::code::Mappings;
use crate::support::process::Process;
use crate::support::programs::{compile, source};
use crate::support::trace::Trace;

/// Stacks, each with the number of its calls.
type Stacks = BTreeMap<Vec<String>, u64>;

fn total(stacks: &Stacks) -> u64 {
    stacks.values().sum()
}

/// What gdb finds.
fn by_gdb(program: &Path, argument: &str) -> Stacks {
    let folder = tempfile::tempdir().expect("a folder for what gdb writes");
    let (input, output) = (folder.path().join("input"), folder.path().join("output"));
    std::fs::write(&input, "g").expect("cannot write the program's input");
    let gdb = Command::new("gdb")
        .args(["-batch", "-nx", "-x"])
        .arg(source("walk.py"))
        .arg(program)
        .env("ARGUMENT", argument)
        .env("INPUT", &input)
        .env("OUTPUT", &output)
        .env("LC_ALL", "C")
        .output()
        .unwrap_or_else(|error| panic!("cannot start gdb (apt-get install gdb): {error}"));
    let told = std::fs::read_to_string(&output).unwrap_or_default();
    let is_map = |line: &&str| line.starts_with("map ");
    assert!(
        told.ends_with("\nend\n"),
        "gdb did not come to the end: {}",
        String::from_utf8_lossy(&gdb.stderr)
    );
    let lines: Vec<&str> = told.trim_end_matches("end\n").lines().collect();
    let mappings = Mappings::parse(lines.iter().copied().filter(is_map).map(|line| &line[4..]));
    let mut stacks = Stacks::new();
    for line in lines.iter().filter(|line| !is_map(line)) {
        let address = |word| u64::from_str_radix(word, 16).expect("an address");
        let stack: Vec<u64> = line.split(' ').map(address).collect();
        *stacks.entry(mappings.places(&stack)).or_default() += 1;
    }
    stacks
}

/// Runs of the program, where rings overflow.
const ATTEMPTS: usize = 8;

/// What leakd finds, in a run of which no stack was lost to a full ring: the
/// program makes hundreds of new stacks in a moment, and on a busy machine leakd
/// may not be there to take them.
fn by_leakd(program: &Path, argument: &str) -> Stacks {
    for _ in 0..ATTEMPTS {
        let (stacks, lost) = once_by_leakd(program, argument);
        if lost == 0 {
            return stacks;
        }
        eprintln!("the stacks of {lost} calls were lost to full rings: once more");
    }
    panic!("stacks were lost to full rings in each of {ATTEMPTS} runs");
}

/// What leakd finds in one run, and the calls whose stacks were not announced.
fn once_by_leakd(program: &Path, argument: &str) -> (Stacks, u64) {
    // It gives way to leakd, where both want the processor.
    let mut command = Command::new("nice");
    command.args(["-n", "19"]).arg(program);
    command.args(Some(argument).filter(|argument| !argument.is_empty()));
    let mut process = Process::start_ready(command);
    let mut trace = Trace::start();
    let slot = trace.attach(process.pid());
    process.write(b"g");
    trace.pump_until("the program to do its work", || process.has_said(b'd'));
    let mappings = Mappings::of(process.pid());
    let mut stacks = Stacks::new();
    let looked = trace.allocations(slot);
    for seen in looked.seen {
        *stacks.entry(mappings.places(&seen.stack.frames)).or_default() += seen.count;
    }
    (stacks, looked.unknown)
}

/// The calls whose stacks are equal; tells of some that are not.
fn equal(gdb: &Stacks, leakd: &Stacks) -> u64 {
    /// Stacks that are shown of each side.
    const SHOWN: usize = 4;
    let count = |stacks: &Stacks, stack: &Vec<String>| stacks.get(stack).copied().unwrap_or(0);
    let tell = |name: &str, of: &Stacks, other: &Stacks| {
        let others = of.iter().filter(|(stack, calls)| **calls > count(other, stack));
        for (stack, calls) in others.take(SHOWN) {
            eprintln!("{name}: {calls} calls, not so by the other ({}):", count(other, stack));
            stack.iter().for_each(|frame| eprintln!("    {frame}"));
        }
    };
    tell("gdb", gdb, leakd);
    tell("leakd", leakd, gdb);
    gdb.iter().map(|(stack, calls)| (*calls).min(count(leakd, stack))).sum()
}

/// Compares the two runs; gives the calls that are equal and all calls.
fn compare(program: &Path, argument: &str) -> (u64, u64) {
    let gdb = by_gdb(program, argument);
    let leakd = by_leakd(program, argument);
    assert_eq!(total(&leakd), total(&gdb), "the two runs made other calls");
    let (equal, all) = (equal(&gdb, &leakd), total(&gdb));
    let frames: u64 = gdb.iter().map(|(stack, calls)| stack.len() as u64 * calls).sum();
    eprintln!(
        "{}: {equal} of {all} stacks equal gdb's ({} distinct, {frames} frames)",
        program.file_name().unwrap_or_default().display(),
        gdb.len(),
    );
    (equal, all)
}

/// Check a C++ program of templates, virtual functions, lambdas, exceptions,
/// coroutines and callbacks: 999 of 1,000 stacks, out of 5,000 or more.
#[test]
fn cpp_workload() {
    let (equal, all) = compare(&compile("workload.cpp", &["-std=c++20"]), "");
    assert!(all >= 5000, "only {all} stacks");
    assert!(equal * 1000 >= all * 999, "{equal} of {all} stacks are equal");
}

/// Check every stack of the hard cases in C, with a library that came by
/// dlopen.
#[test]
fn hard_cases() {
    let plugin = compile("hard_plugin.c", &["-shared", "-fPIC"]);
    let plugin = plugin.to_str().expect("a path in UTF-8");
    let (equal, all) = compare(&compile("hard.c", &["-DWITH_PLUGIN"]), plugin);
    assert_eq!(equal, all);
}

/// Check every stack of the hard cases in a static program.
#[test]
fn hard_cases_static() {
    let (equal, all) = compare(&compile("hard.c", &["-static"]), "");
    assert_eq!(equal, all);
}

/// Check every stack of the hard cases in a static program that can be loaded
/// anywhere.
#[test]
fn hard_cases_static_pie() {
    let (equal, all) = compare(&compile("hard.c", &["-static-pie"]), "");
    assert_eq!(equal, all);
}
