//! Random interleavings of allocator calls on several threads, for each
//! allocator and each way to probe.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use leakd::bpf::features::ProbeMethod;
use leakd::engine::Settings;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::driver::{Driver, OPERATIONS};
use super::model::{Habits, Model, Totals};
use super::operation::{Kind, Limits, Operation, Step, plan, step};
use super::programs;
use super::trace::{QUOTA, Trace};

/// Operations of the shared file that allocate blocks before the attach.
const UNKNOWN: usize = 4096;
/// Most operations of a case; as many frees may follow them.
const LONGEST: usize = (OPERATIONS - UNKNOWN) / 2;

/// What is run, and how often.
#[derive(Debug)]
struct Setup {
    preload: Option<PathBuf>,
    method: ProbeMethod,
    odd_alignments: bool,
    cases: u32,
    lengths: RangeInclusive<usize>,
    /// Cases between one attach and the next.
    cases_an_attach: u32,
}

/// A driver under trace.
struct Session {
    trace: Trace,
    driver: Driver,
    slot: u16,
    model: Model,
    /// The next block from before the attach that has not been used.
    unknown: usize,
    cases: u32,
}

impl Session {
    fn start(setup: &Setup) -> Self {
        let limit = (setup.method != ProbeMethod::Session).then_some(setup.method);
        let settings = Settings { quota: QUOTA, method_limit: limit, ..Settings::default() };
        let mut trace = Trace::start(settings);
        assert_eq!(trace.engine().method(), setup.method, "this kernel cannot do it");
        let preload: Vec<&Path> = setup.preload.iter().map(PathBuf::as_path).collect();
        let mut driver = Driver::start(&preload);
        let (slot, model) = attach(&mut trace, &mut driver);
        Self { trace, driver, slot, model, unknown: 0, cases: 0 }
    }

    /// Begins anew, with an empty ledger.
    fn attach_again(&mut self) {
        self.trace.detach(self.slot);
        let rest: Vec<Operation> = (self.unknown..UNKNOWN).map(Operation::free).collect();
        self.driver.run(UNKNOWN, &rest);
        (self.slot, self.model) = attach(&mut self.trace, &mut self.driver);
        (self.unknown, self.cases) = (0, 0);
    }

    fn seen(&mut self) -> Totals {
        self.trace.totals(self.slot, &self.driver)
    }

    /// Does the steps, looks, gives everything back, looks again. What
    /// differs from the model comes back as text.
    fn check(&mut self, steps: &[Step], setup: &Setup) -> Result<(), String> {
        if self.cases == setup.cases_an_attach || self.unknown + steps.len() > UNKNOWN {
            self.attach_again();
        }
        self.cases += 1;
        let mut unknown = (self.unknown..UNKNOWN).inspect(|next| self.unknown = next + 1);
        let operations = plan(steps, UNKNOWN, &mut unknown);
        let outcomes = self.driver.run(UNKNOWN, &operations);
        self.model.perform(UNKNOWN, &operations, &outcomes);
        let seen = self.seen();
        let result = compare("after the steps", &self.model.totals(), &seen);

        let first = UNKNOWN + operations.len();
        let frees: Vec<Operation> =
            self.model.still_held(UNKNOWN..first).map(Operation::free).collect();
        let freed = self.driver.run(first, &frees);
        self.model.perform(first, &frees, &freed);
        let seen = self.seen();
        let result =
            result.and_then(|()| compare("after freeing the rest", &self.model.totals(), &seen));
        if result.is_err() {
            self.attach_again();
        }
        result
    }
}

/// Allocates the blocks that will not be known, then attaches.
fn attach(trace: &mut Trace, driver: &mut Driver) -> (u16, Model) {
    let before: Vec<Operation> = (0..UNKNOWN as u64)
        .map(|number| Operation::new(Kind::Malloc, number, 1 + number % 700))
        .collect();
    driver.run(0, &before);
    let slot = trace.attach(driver.pid());
    let functions = trace.target(slot).probes().functions();
    let habits = Habits {
        overflow_is_seen: functions.iter().any(|function| function.symbol == "reallocarray"),
    };
    (slot, Model::new(habits))
}

fn compare(when: &str, expected: &Totals, seen: &Totals) -> Result<(), String> {
    if expected == seen {
        Ok(())
    } else {
        Err(format!("{when} the ledger should say\n{expected:#?}\nbut says\n{seen:#?}"))
    }
}

fn check(setup: &Setup) {
    assert!(*setup.lengths.end() <= LONGEST);
    let session = RefCell::new(Session::start(setup));
    let config = Config {
        cases: setup.cases,
        failure_persistence: None,
        max_shrink_iters: 400,
        ..Config::default()
    };
    let steps = step(Limits { odd_alignments: setup.odd_alignments });
    TestRunner::new(config)
        .run(&prop::collection::vec(steps, setup.lengths.clone()), |steps| {
            session.borrow_mut().check(&steps, setup).map_err(TestCaseError::fail)
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

/// Check that every sequence is counted exactly with glibc's allocator.
#[test]
fn glibc() {
    check(&Setup {
        preload: None,
        method: ProbeMethod::Session,
        odd_alignments: true,
        cases: 150,
        lengths: 200..=2000,
        cases_an_attach: 10,
    });
}

/// Check that every sequence is counted exactly with jemalloc, to which the C
/// library's reallocarray and strdup lead, too.
#[test]
fn jemalloc() {
    check(&Setup {
        preload: Some(programs::library("libjemalloc.so.2", "libjemalloc2")),
        method: ProbeMethod::Session,
        odd_alignments: true,
        cases: 100,
        lengths: 200..=2000,
        cases_an_attach: 10,
    });
}

/// Check that every sequence is counted exactly with tcmalloc.
#[test]
fn tcmalloc() {
    check(&Setup {
        preload: Some(programs::library("libtcmalloc_minimal.so.4", "libtcmalloc-minimal4")),
        method: ProbeMethod::Session,
        odd_alignments: false,
        cases: 100,
        lengths: 200..=2000,
        cases_an_attach: 10,
    });
}

/// Check that every sequence is counted exactly with mimalloc.
#[test]
fn mimalloc() {
    check(&Setup {
        preload: Some(programs::library("libmimalloc.so.2.0", "libmimalloc2.0")),
        method: ProbeMethod::Session,
        odd_alignments: true,
        cases: 100,
        lengths: 200..=2000,
        cases_an_attach: 10,
    });
}

/// Check the way for kernels from 6.6 on, which have no sessions: entry and
/// return in two links.
#[test]
fn without_sessions() {
    for preload in [None, Some(programs::library("libmimalloc.so.2.0", "libmimalloc2.0"))] {
        check(&Setup {
            preload,
            method: ProbeMethod::Multi,
            odd_alignments: true,
            cases: 60,
            lengths: 200..=2000,
            cases_an_attach: 15,
        });
    }
}

/// Check the way for kernels before 6.6: a perf event for each place.
#[test]
fn by_perf_events() {
    for preload in [None, Some(programs::library("libjemalloc.so.2", "libjemalloc2"))] {
        check(&Setup {
            preload,
            method: ProbeMethod::Perf,
            odd_alignments: true,
            cases: 50,
            lengths: 200..=2000,
            cases_an_attach: 50,
        });
    }
}
