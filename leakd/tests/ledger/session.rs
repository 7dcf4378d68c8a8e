//! A driver under trace, and the comparison of what the ledger says with what
//! the model expects.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use leakd::bpf::features::ProbeMethod;
use leakd::engine::Settings;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::driver::{Driver, OPERATIONS};
use super::host::scaled;
use super::model::{Habits, Model, Totals};
use super::operation::{Kind, Limits, Operation, Step, plan, step};
use super::trace::{QUOTA, Trace};

/// Operations of the shared file that allocate blocks before the attach.
const UNKNOWN: usize = 4096;
/// Most operations of a case; as many frees may follow them.
const LONGEST: usize = (OPERATIONS - UNKNOWN) / 2;

/// What is run, and how often.
#[derive(Debug)]
pub struct Setup {
    /// Preloaded into the driver.
    pub preload: Vec<PathBuf>,
    /// How probes are to be attached.
    pub method: ProbeMethod,
    /// What is not to be called.
    pub limits: Limits,
    /// What is in front of the allocator.
    pub habits: Habits,
    /// Random sequences; fewer on a slow machine.
    pub cases: u32,
    /// Calls in each.
    pub lengths: RangeInclusive<usize>,
    /// Cases between one attach and the next.
    pub cases_an_attach: u32,
}

/// A driver under trace.
struct Session {
    trace: Trace,
    driver: Driver,
    slot: u16,
    model: Model,
    habits: Habits,
    /// The next block from before the attach that has not been used.
    unknown: usize,
    cases: u32,
}

impl Session {
    fn start(setup: &Setup) -> Self {
        let settings =
            Settings { quota: QUOTA, method_limit: Some(setup.method), ..Settings::default() };
        let mut trace = Trace::start(settings);
        assert_eq!(trace.engine().method(), setup.method, "this kernel cannot do it");
        let preload: Vec<&Path> = setup.preload.iter().map(PathBuf::as_path).collect();
        let mut driver = Driver::start(&preload);
        let (slot, model) = attach(&mut trace, &mut driver, setup.habits);
        Self { trace, driver, slot, model, habits: setup.habits, unknown: 0, cases: 0 }
    }

    /// Begins anew, with an empty ledger.
    fn attach_again(&mut self) {
        self.trace.detach(self.slot);
        let rest: Vec<Operation> = (self.unknown..UNKNOWN).map(Operation::free).collect();
        self.driver.run(UNKNOWN, &rest);
        (self.slot, self.model) = attach(&mut self.trace, &mut self.driver, self.habits);
        (self.unknown, self.cases) = (0, 0);
    }

    /// What the model says and what the ledger says.
    fn both(&mut self) -> [Totals; 2] {
        let both = [self.model.totals(), self.trace.totals(self.slot, &self.driver)];
        // A walk gets past one call whose return address has been replaced, so
        // with two around the one that counts it ends in the outer interposer.
        if self.habits.interposers > 1 { both.map(Totals::without_sites) } else { both }
    }

    /// Does the steps, looks, gives everything back, looks again. What
    /// differs from the model comes back as text.
    fn check(&mut self, steps: &[Step], setup: &Setup) -> Result<(), String> {
        // Perf events are slow to go: they stay for as long as they can.
        let changes = setup.method != ProbeMethod::Perf && self.cases == setup.cases_an_attach;
        if changes || self.unknown + steps.len() / 4 > UNKNOWN {
            self.attach_again();
        }
        self.cases += 1;
        let mut unknown = (self.unknown..UNKNOWN).inspect(|next| self.unknown = next + 1);
        let operations = plan(steps, UNKNOWN, &mut unknown);
        let outcomes = self.driver.run(UNKNOWN, &operations);
        self.model.perform(UNKNOWN, &operations, &outcomes);
        let [expected, seen] = self.both();
        let result = compare("after the steps", &expected, &seen);

        let first = UNKNOWN + operations.len();
        let frees: Vec<Operation> =
            self.model.still_held(UNKNOWN..first).map(Operation::free).collect();
        let freed = self.driver.run(first, &frees);
        self.model.perform(first, &frees, &freed);
        let [expected, seen] = self.both();
        let result = result.and_then(|()| compare("after freeing the rest", &expected, &seen));
        if result.is_err() {
            self.attach_again();
        }
        result
    }
}

/// Allocates the blocks that will not be known, then attaches.
fn attach(trace: &mut Trace, driver: &mut Driver, habits: Habits) -> (u16, Model) {
    let before: Vec<Operation> = (0..UNKNOWN as u64)
        .map(|number| Operation::new(Kind::Malloc, number, 1 + number % 700))
        .collect();
    let outcomes = driver.run(0, &before);
    let slot = trace.attach(driver.pid());
    let functions = trace.target(slot).probes().functions();
    let habits = Habits {
        // mimalloc's reallocarray passes all calls on to its reallocn.
        overflow_is_seen: functions.iter().any(|function| {
            function.symbol.ends_with("reallocarray") || function.symbol.ends_with("reallocn")
        }),
        ..habits
    };
    (slot, Model::new(habits, &outcomes))
}

/// What differs, as text.
fn compare(when: &str, expected: &Totals, seen: &Totals) -> Result<(), String> {
    if expected == seen {
        return Ok(());
    }
    // Only the lines that differ.
    let (expected, seen) = (format!("{expected:#?}"), format!("{seen:#?}"));
    let of = |text: &str, other: &str| {
        let others: Vec<&str> = other.lines().collect();
        let lines = text.lines().enumerate().filter(|(at, line)| others.get(*at) != Some(line));
        lines.map(|(_, line)| line.to_owned()).collect::<Vec<_>>().join("\n")
    };
    let (missing, instead) = (of(&expected, &seen), of(&seen, &expected));
    Err(format!("{when} the ledger should say\n{missing}\nbut says\n{instead}\n"))
}

/// Runs random sequences and compares after each.
///
/// # Panics
/// With the shortest sequence found for which model and ledger differ.
pub fn check(setup: &Setup) {
    assert!(*setup.lengths.end() <= LONGEST);
    let session = RefCell::new(Session::start(setup));
    let config = Config {
        cases: scaled(u64::from(setup.cases), 3) as u32,
        failure_persistence: None,
        max_shrink_iters: scaled(150, 3) as u32,
        ..Config::default()
    };
    let steps = step(setup.limits);
    TestRunner::new(config)
        .run(&prop::collection::vec(steps, setup.lengths.clone()), |steps| {
            session.borrow_mut().check(&steps, setup).map_err(TestCaseError::fail)
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}
