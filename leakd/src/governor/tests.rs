//! Tests of the governor against simulated targets.

use leakd_common::target::{Counter, TargetCounters};
use proptest::prelude::*;

use super::*;
use crate::canary::CanaryReport;

const PRICES: Prices =
    Prices { recorded: 1800.0, left_out: 500.0, free: 500.0, single_step: 5000.0 };

/// A program that would call malloc so often a second if it were left alone,
/// and takes all of a CPU.
struct Program {
    pairs: f64,
    cpu: f64,
}

impl Program {
    /// A control period at a step. Tracing costs it time, so it does less.
    fn run(&self, step: Step) -> Load {
        let kept = match step {
            Step::Sampled { bytes } => (256.0 / bytes as f64).min(1.0),
            _ => 1.0,
        };
        let pair = kept * PRICES.recorded + (1.0 - kept) * PRICES.left_out + PRICES.free;
        let slowed = 1.0 / (1.0 + self.pairs * pair / 1e9 / self.cpu);
        let pairs = self.pairs * slowed;
        Load {
            seconds: 1.0,
            recorded: (pairs * kept) as u64,
            left_out: (pairs * (1.0 - kept)) as u64,
            passed_over: 0,
            frees: pairs as u64,
            cpu_ns: (self.cpu * 1e9) as u64,
        }
    }
}

/// Runs for some seconds: costs by second (share of CPU time), last step.
fn simulate(program: impl Fn(u32) -> Program, budget: f64, seconds: u32) -> (Vec<f64>, Controller) {
    let mut controller = Controller::new(0.0, 0);
    let mut costs = Vec::new();
    for second in 1..=seconds {
        let load = controller.is_open().then(|| program(second).run(controller.step()));
        costs.push(load.map_or(0.0, |load| load.cost_ns(&PRICES) / load.cpu_per_second()));
        controller.tick(f64::from(second), load.as_ref(), &PRICES, budget);
    }
    (costs, controller)
}

fn mean(costs: &[f64]) -> f64 {
    costs.iter().sum::<f64>() / costs.len().max(1) as f64
}

/// Check that a quiet program is recorded in full, a busier one by samples, a
/// busy one in windows, and that one which would be slowed a thousandfold is
/// let go.
#[test]
fn steps_follow_the_load() {
    let step = |pairs: f64| {
        let (_, controller) = simulate(|_| Program { pairs, cpu: 1.0 }, 0.05, 300);
        controller.step().name()
    };
    assert_eq!(step(1_000.0), "full");
    assert_eq!(step(30_000.0), "sampled");
    assert_eq!(step(500_000.0), "windows");
    let free = Prices { recorded: 1e6, left_out: 1e6, free: 1e6, single_step: 0.0 };
    let mut controller = Controller::new(0.0, 0);
    let load = Program { pairs: 2e6, cpu: 1.0 }.run(Step::Full);
    let load = Load { recorded: 1_000_000, frees: 1_000_000, ..load };
    let decision = controller.tick(1.0, Some(&load), &free, 0.05);
    assert_eq!((decision.step, decision.open), (Step::Detached, false));
    let least = controller.least_cost();
    assert!(
        (0.04..2000.0).contains(&least),
        "what it is let go for, not what it costs then: {least}"
    );
}

/// Check that what no step records is not charged as if one did: of a kernel that is
/// busy with other caches, the one that is asked for is recorded in full.
#[test]
fn what_is_passed_over_costs_no_more_in_full() {
    let load = Load {
        seconds: 1.0,
        recorded: 100,
        passed_over: 50_000,
        cpu_ns: 2_000_000_000,
        ..Load::default()
    };
    assert_eq!(load.cost_in_full_ns(&PRICES), load.cost_ns(&PRICES));
    assert_eq!(load.traps_per_second(), 50_100.0);
    let mut controller = Controller::without_samples(0.0);
    for second in 1..100 {
        let decision = controller.tick(f64::from(second), Some(&load), &PRICES, 0.02);
        assert_eq!(decision.step, Step::Full, "{second}");
    }
    // All of it: 90 ms a second of two CPUs.
    let all = Load { recorded: 50_100, passed_over: 0, ..load };
    let decision = controller.tick(100.0, Some(&all), &PRICES, 0.02);
    assert_eq!(decision.step.name(), "windows");
}

/// Check that a load that rises and falls leads down at once and up slowly.
#[test]
fn steps_come_back() {
    let busy = |second: u32| if (20..40).contains(&second) { 400_000.0 } else { 1_000.0 };
    let mut controller = Controller::new(0.0, 0);
    let mut steps = Vec::new();
    for second in 1..=2000 {
        let program = Program { pairs: busy(second), cpu: 1.0 };
        let load = controller.is_open().then(|| program.run(controller.step()));
        let decision = controller.tick(f64::from(second), load.as_ref(), &PRICES, 0.05);
        if decision.changed {
            steps.push((second, decision.step.name()));
        }
    }
    assert_eq!(steps[0], (20, "windows"), "at the end of the period that was over");
    assert_eq!(steps.last().map(|step| step.1), Some("full"), "{steps:?}");
    assert!(steps.last().is_some_and(|step| step.0 > 60), "{steps:?}");
}

/// Check that windows open and close, each for one control period.
#[test]
fn windows_turn() {
    let (costs, controller) = simulate(|_| Program { pairs: 400_000.0, cpu: 1.0 }, 0.05, 400);
    assert!(controller.windows() > 10, "{}", controller.windows());
    let open = costs.iter().filter(|cost| **cost > 0.0).count();
    assert!((10..50).contains(&open), "{open}");
    assert!(costs.windows(2).all(|pair| pair[0] == 0.0 || pair[1] == 0.0));
}

/// Check that the operator's sampling is never undone.
#[test]
fn asked_for_sampling_stays() {
    let mut controller = Controller::new(0.0, 100_000);
    assert_eq!(controller.step(), Step::Sampled { bytes: 100_000 });
    for second in 1..100 {
        let load = Program { pairs: 10.0, cpu: 1.0 }.run(controller.step());
        let decision = controller.tick(f64::from(second), Some(&load), &PRICES, 0.05);
        assert_eq!(decision.step, Step::Sampled { bytes: 100_000 });
    }
    let load = Program { pairs: 30_000.0, cpu: 1.0 }.run(Step::Full);
    let decision = controller.tick(100.0, Some(&load), &PRICES, 0.05);
    assert!(decision.step.sample_bytes() > 100_000 || !decision.open, "{decision:?}");
}

/// Check that what cannot be sampled goes from everything to windows, within
/// its budget, and comes back.
#[test]
fn without_samples() {
    let mut controller = Controller::without_samples(0.0);
    let mut steps = Vec::new();
    for second in 1..=1000 {
        let pairs = if second < 500 { 30_000.0 } else { 1_000.0 };
        let load = controller.is_open().then(|| Program { pairs, cpu: 1.0 }.run(Step::Full));
        let decision = controller.tick(f64::from(second), load.as_ref(), &PRICES, 0.05);
        assert_eq!(decision.step.sample_bytes(), 0);
        if decision.changed {
            steps.push(decision.step.name());
        }
        assert!(!(300..500).contains(&second) || controller.cost() <= 0.05);
    }
    assert_eq!((steps.first(), steps.last()), (Some(&"windows"), Some(&"full")), "{steps:?}");
}

proptest! {
    /// Check that whatever the load, the budget holds on average, and no
    /// target is beyond it for two control periods running.
    #[test]
    fn budget_holds(pairs in 1.0f64..5e6, cpu in 0.05f64..8.0, percent in 1.0f64..30.0) {
        let budget = percent / 100.0;
        // Windows come at irregular times: a mean takes many of them.
        let (costs, _) = simulate(|_| Program { pairs, cpu }, budget, 60_000);
        prop_assert!(mean(&costs[300..]) <= budget * 1.05, "{}", mean(&costs[300..]));
        let over: Vec<bool> = costs.iter().map(|cost| *cost > budget).collect();
        prop_assert!(!over.windows(2).any(|pair| pair[0] && pair[1]));
    }

    /// Check that the machine's budget is kept by what each is given, and
    /// that nobody is given more than a target may cost.
    #[test]
    fn machine_budget(
        costs in prop::collection::vec((0.001f64..1.0, 0.001f64..4.0), 1..40),
        machine in 0.0f64..4.0,
    ) {
        let given = shares(&costs, 0.05, machine);
        prop_assert!(given.iter().all(|share| *share <= 0.05 && *share >= 0.0));
        let total: f64 = costs.iter().map(|cost| cost.1).sum();
        if total <= machine {
            prop_assert!(given.iter().all(|share| *share == 0.05));
        } else {
            let after: f64 = costs
                .iter()
                .zip(&given)
                .map(|((of_target, of_cpu), share)| of_cpu * (share / of_target).min(1.0))
                .sum();
            prop_assert!(after <= machine + 1e-9, "{after} > {machine}");
        }
    }
}

/// Check that single-stepped traps are charged at what the canary found, on
/// the side where they are.
#[test]
fn single_steps_are_charged() {
    let canary = CanaryReport {
        bare_pair_ns: 10.0,
        traced_pair_ns: 2310.0,
        left_out_pair_ns: 1010.0,
        emulated_trap_ns: 450.0,
        single_stepped_trap_ns: 5450.0,
        programs: None,
    };
    let prices = Prices::of(&canary);
    let plain = Prices { recorded: 1800.0, left_out: 500.0, free: 500.0, single_step: 5000.0 };
    assert_eq!(prices, plain);
    assert_eq!(prices.with_single_steps(false, false), plain);
    assert_eq!(prices.with_single_steps(false, true), Prices { free: 5500.0, ..plain });
    let slow = Prices { recorded: 6800.0, left_out: 5500.0, ..plain };
    assert_eq!(prices.with_single_steps(true, false), slow);
}

/// Check that every trap that the counters tell of is charged.
#[test]
fn counters_are_charged() {
    let before = TargetCounters::default();
    for counter in [
        Counter::Inserted,
        Counter::SampledOut,
        Counter::Failed,
        Counter::Nested,
        Counter::Removed,
        Counter::UnknownFrees,
        Counter::Ignored,
        Counter::LostLedgerFull,
        Counter::Filtered,
        Counter::Movable,
    ] {
        let mut now = before;
        now.counts[counter as usize] = 1000;
        let load = Load::between(&before, &now, 2.0, 1_000_000_000);
        assert_eq!(load.traps_per_second(), 500.0, "{counter:?}");
        assert!(load.cost_ns(&PRICES) >= 250_000.0);
    }
    let load = Load { seconds: 1.0, cpu_ns: 1_000, ..Load::default() };
    assert_eq!(load.cpu_per_second(), 1e8, "an idle target");
}
