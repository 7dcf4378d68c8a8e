//! Random interleavings of allocator calls on several threads, for each
//! allocator and each way to probe.

use std::path::PathBuf;

use leakd::bpf::features::ProbeMethod;

use super::methods::{at_hand, best};
use super::model::Habits;
use super::operation::Limits;
use super::programs;
use super::session::{Setup, check};

fn jemalloc() -> PathBuf {
    programs::library("libjemalloc.so.2", "libjemalloc2")
}

fn tcmalloc() -> PathBuf {
    programs::library("libtcmalloc_minimal.so.4", "libtcmalloc-minimal4")
}

fn mimalloc() -> PathBuf {
    programs::library("libmimalloc.so.2.0", "libmimalloc2.0")
}

fn setup(preload: Option<PathBuf>, method: ProbeMethod, cases: u32) -> Setup {
    Setup {
        preload: preload.into_iter().collect(),
        method,
        limits: Limits::NONE,
        habits: Habits::default(),
        cases,
        lengths: 1..=2000,
        cases_an_attach: 10,
    }
}

/// Check that every sequence is counted exactly with glibc's allocator.
#[test]
fn with_glibc() {
    check(&setup(None, best(), 150));
}

/// Check that every sequence is counted exactly with jemalloc, to which the C
/// library's reallocarray and strdup lead, too.
#[test]
fn with_jemalloc() {
    check(&setup(Some(jemalloc()), best(), 100));
}

/// Check that every sequence is counted exactly with tcmalloc, which is not
/// made for alignments that are no power of two.
#[test]
fn with_tcmalloc() {
    let limits = Limits { odd_alignments: false, ..Limits::NONE };
    check(&Setup { limits, ..setup(Some(tcmalloc()), best(), 100) });
}

/// Check that every sequence is counted exactly with mimalloc.
#[test]
fn with_mimalloc() {
    check(&setup(Some(mimalloc()), best(), 100));
}

/// Check the way for kernels from 6.6 on, which have no sessions: entry and
/// return in two links.
#[test]
fn without_sessions() {
    for method in at_hand(&[ProbeMethod::Multi]) {
        check(&setup(None, method, 60));
        check(&setup(Some(mimalloc()), method, 60));
    }
}

/// Check the way for kernels before 6.6: a perf event for each place.
#[test]
fn by_perf_events() {
    for preload in [None, Some(jemalloc())] {
        check(&setup(preload, ProbeMethod::Perf, 50));
    }
}
