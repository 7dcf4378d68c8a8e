//! No stack is torn: programs that preempt each other on one CPU do not write
//! into each other's walks.
//!
//! Where kernels preempt (CONFIG_PREEMPT, or preempt=full), a program that kept
//! its state in memory of the CPU's, or was given a stack of the CPU's by the
//! kernel, would mix the stacks of two threads.

use std::collections::BTreeMap;
use std::process::Command;

use crate::support::process::Process;
use crate::support::programs::compile;
use crate::support::trace::{Seen, Trace};

/// Stacks to be looked at, unless the variable says otherwise: in an emulated
/// machine they take long.
const STACKS: u64 = 1_000_000;
const VARIABLE: &str = "LEAKD_STACKS";

/// In programs/shapes.c.
const SHAPES: usize = 96;
const THREADS: u64 = 4;

/// The call sites of the shapes, by the bytes that each asks for.
fn shapes(seen: Vec<Seen>) -> BTreeMap<u64, Seen> {
    // The others have made the threads.
    let of_shape = |seen: &Seen| seen.count == THREADS && seen.bytes / THREADS <= SHAPES as u64;
    let shapes: Vec<Seen> = seen.into_iter().filter(of_shape).collect();
    assert!(shapes.iter().all(|shape| shape.end().complete()), "{shapes:?}");
    assert_eq!(shapes.len(), SHAPES);
    shapes.into_iter().map(|shape| (shape.bytes / THREADS, shape)).collect()
}

/// Check that of a million stacks each is a true one, that each true one was
/// counted as often as the program went through it, and with its own size.
#[test]
fn no_stack_is_torn() {
    let stacks = std::env::var(VARIABLE).map_or(STACKS, |text| {
        text.parse().unwrap_or_else(|_| panic!("{VARIABLE} is no number: {text}"))
    });
    let folder = tempfile::tempdir().expect("a folder for what the program writes");
    let truth = folder.path().join("truth");
    let mut command = Command::new(compile("shapes.c", &[]));
    command.arg(stacks.to_string()).arg(&truth);
    let mut process = Process::start_ready(command);
    let mut trace = Trace::start();
    let slot = trace.attach(process.pid());
    process.write(b"g");
    trace.pump_until("each thread to walk through the shapes", || process.has_said(b'r'));
    let quiet = trace.allocations(slot);
    assert_eq!(quiet.unknown, 0);
    let known: BTreeMap<u64, Vec<u64>> =
        quiet.seen.iter().map(|seen| (seen.key, seen.stack.frames.to_vec())).collect();
    let shapes = shapes(quiet.seen);
    assert_eq!(shapes.len(), SHAPES, "two shapes have the same size");

    process.write(b"g");
    trace.pump_until("the program to do its work", || process.has_said(b'd'));
    let looked = trace.allocations(slot);
    let torn: Vec<&Seen> =
        looked.seen.iter().filter(|seen| !known.contains_key(&seen.key)).collect();
    let torn_calls = torn.iter().map(|seen| seen.count).sum::<u64>() + looked.unknown;
    let all = looked.seen.iter().map(|seen| seen.count).sum::<u64>() + looked.unknown;
    eprintln!("{torn_calls} of {all} stacks are torn");
    for seen in torn.iter().take(3) {
        eprintln!("    {} times, end {:?}: {:x?}", seen.count, seen.end(), seen.stack.frames);
    }
    assert_eq!(torn_calls, 0, "torn stacks");
    assert!(all >= stacks, "only {all} stacks");

    let by_key: BTreeMap<u64, &Seen> = looked.seen.iter().map(|seen| (seen.key, seen)).collect();
    let truth = std::fs::read_to_string(truth).expect("the program has written the truth");
    let numbers = truth.lines().map(|line| {
        let (size, calls) = line.split_once(' ').expect("two numbers");
        let number = |text: &str| text.parse::<u64>().expect("a number");
        (number(size), number(calls))
    });
    for (size, calls) in numbers {
        let seen = by_key[&shapes[&size].key];
        assert_eq!((seen.count, seen.bytes), (calls, calls * size), "the shape of size {size}");
    }
}
