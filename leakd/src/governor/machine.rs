//! All targets together.

/// What each target may cost, as a share of its own CPU time, so that all
/// together keep the machine's budget.
///
/// `costs`: of each target, what it costs now as a share of its CPU time and
/// as a share of one CPU. `target`: the budget of each. `machine`: the budget
/// of all, in CPUs, less what leakd takes itself. Those that cost most give
/// way; a target below the common level keeps its budget.
pub fn shares(costs: &[(f64, f64)], target: f64, machine: f64) -> Vec<f64> {
    let total: f64 = costs.iter().map(|cost| cost.1).sum();
    if total <= machine.max(0.0) {
        return vec![target; costs.len()];
    }
    let level = level(costs, machine.max(0.0));
    costs
        .iter()
        .map(
            |(of_target, of_cpu)| {
                if *of_cpu <= level { target } else { (of_target * level / of_cpu).min(target) }
            },
        )
        .collect()
}

/// The level at which costs (in CPUs) are to be cut for their sum to be
/// `limit`.
fn level(costs: &[(f64, f64)], limit: f64) -> f64 {
    let mut sorted: Vec<f64> = costs.iter().map(|cost| cost.1).collect();
    sorted.sort_by(f64::total_cmp);
    let mut left = limit;
    for (index, cost) in sorted.iter().enumerate() {
        let rest = (sorted.len() - index) as f64;
        if cost * rest >= left {
            return left / rest;
        }
        left -= cost;
    }
    f64::MAX
}
