//! Allocators in front of the allocator: each block is counted once, by the
//! one that has the memory, and only its own free ends it.

use std::path::PathBuf;

use leakd::bpf::features::ProbeMethod;

use super::methods::{at_hand, best};
use super::model::Habits;
use super::operation::Limits;
use super::programs;
use super::session::{Setup, check};

/// An interposer, compiled with these flags.
fn interposer(flags: &[&str]) -> PathBuf {
    let flags = [&["-shared", "-fPIC"], flags].concat();
    programs::compile("interposer.c", &flags)
}

/// Passes blocks on as they are; the call of the next allocator is a jump.
fn plain() -> PathBuf {
    interposer(&["-DHEADER=0"])
}

/// The same with real calls.
pub fn plain_with_calls() -> PathBuf {
    interposer(&["-DHEADER=0", "-fno-optimize-sibling-calls"])
}

/// Puts 16 bytes of its own in front of each block.
fn header() -> PathBuf {
    interposer(&["-DHEADER=16"])
}

fn setup(preload: Vec<PathBuf>, method: ProbeMethod, habits: Habits) -> Setup {
    let interposers = preload.len() as u64;
    Setup {
        preload,
        method,
        limits: Limits { aligned: false, ..Limits::NONE },
        habits: Habits { interposers, ..habits },
        cases: 25,
        lengths: 1..=1000,
        cases_an_attach: 10,
    }
}

/// Check that an interposer that jumps on is not counted, nor anything taken
/// for lost.
#[test]
fn one_that_jumps_on() {
    for method in at_hand(&[ProbeMethod::Session, ProbeMethod::Multi, ProbeMethod::Perf]) {
        check(&setup(vec![plain()], method, Habits::default()));
    }
}

/// Check that an interposer that calls on is not counted.
#[test]
fn one_that_calls_on() {
    for method in at_hand(&[ProbeMethod::Session, ProbeMethod::Multi, ProbeMethod::Perf]) {
        check(&setup(vec![plain_with_calls()], method, Habits::default()));
    }
}

/// Check that blocks with a header are counted once, as large as they are
/// with it.
#[test]
fn one_with_a_header() {
    let habits = Habits { header: 16, blind: 1, ..Habits::default() };
    for method in at_hand(&[ProbeMethod::Session, ProbeMethod::Multi, ProbeMethod::Perf]) {
        check(&setup(vec![header()], method, habits));
    }
}

/// Check that a block whose free goes no further than the interposer stays
/// outstanding.
#[test]
fn one_that_swallows() {
    let preload = interposer(&["-DHEADER=0", "-DSWALLOW"]);
    let habits = Habits { swallows: true, ..Habits::default() };
    check(&setup(vec![preload], best(), habits));
}

/// Check that two in a row are not counted either.
#[test]
fn two_in_a_row() {
    check(&setup(
        vec![plain_with_calls(), header()],
        best(),
        Habits { header: 16, blind: 2, ..Habits::default() },
    ));
    check(&setup(
        vec![header(), plain_with_calls()],
        best(),
        Habits { header: 16, blind: 1, ..Habits::default() },
    ));
    for method in at_hand(&[ProbeMethod::Multi]) {
        // A file of its own: the loader maps one that is named twice only once.
        let second = interposer(&["-DHEADER=0", "-DSECOND"]);
        check(&setup(vec![plain(), second], method, Habits::default()));
    }
}
