//! What a trap costs, and what a target's traps cost it.

use leakd_common::target::{Counter, TargetCounters};

use crate::canary::CanaryReport;

/// A target that takes less CPU time than this share of a CPU is charged as
/// if it took so much: nobody notices 5 % of almost nothing.
const IDLE_SHARE: f64 = 0.1;

/// What one trap costs on this machine, in nanoseconds, programs included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prices {
    /// An allocation that is recorded: entry, return, walk, ledger; and what
    /// its free will cost beyond one of an unknown block.
    pub recorded: f64,
    /// One that sampling leaves out.
    pub left_out: f64,
    /// A free.
    pub free: f64,
    /// What a trap costs more where the kernel single-steps the probed
    /// instruction: a debug exception, which hypervisors may make very dear.
    pub single_step: f64,
}

impl Prices {
    /// Of the kernel's own memory, before anything was measured: only the time
    /// that the programs run, each at its tracepoint, both of those that see a
    /// free together. A guess, by nginx on one virtual machine: [`super::Factor`]
    /// is learned from the first control period on.
    pub const KERNEL_PROGRAMS: Self =
        Self { recorded: 2000.0, left_out: 60.0, free: 400.0, single_step: 0.0 };
    /// The same with what the kernel does to call them.
    pub const KERNEL: Self =
        Self { recorded: 2100.0, left_out: 120.0, free: 550.0, single_step: 0.0 };

    /// From what the canary measured: pairs of malloc and free, bare,
    /// recorded, and left out by sampling.
    pub fn of(canary: &CanaryReport) -> Self {
        // Entry of malloc and entry of free: one trap each, a look-up each.
        Self::of_pairs(
            canary.added_ns(),
            canary.added_left_out_ns(),
            canary.single_stepped_trap_ns - canary.emulated_trap_ns,
        )
    }

    /// Only the time that the programs ran, the kernel's work around them not
    /// included; `None`: it was not measured.
    pub fn of_programs(canary: &CanaryReport) -> Option<Self> {
        let programs = canary.programs?;
        Some(Self::of_pairs(programs.traced_pair_ns, programs.left_out_pair_ns, 0.0))
    }

    fn of_pairs(recorded: f64, left_out: f64, single_step: f64) -> Self {
        let trap = (left_out / 2.0).max(50.0);
        Self {
            recorded: (recorded - trap).max(trap),
            left_out: trap,
            free: trap,
            single_step: single_step.max(0.0),
        }
    }

    /// So many times as dear. What a single step takes is the processor's and
    /// the hypervisor's affair, whatever the program.
    pub fn times(self, factor: f64) -> Self {
        Self {
            recorded: self.recorded * factor,
            left_out: self.left_out * factor,
            free: self.free * factor,
            single_step: self.single_step,
        }
    }

    /// For a target some of whose functions can only be probed where the
    /// kernel single-steps.
    pub fn with_single_steps(self, allocating: bool, freeing: bool) -> Self {
        let extra = |slow| if slow { self.single_step } else { 0.0 };
        Self {
            recorded: self.recorded + extra(allocating),
            left_out: self.left_out + extra(allocating),
            free: self.free + extra(freeing),
            ..self
        }
    }
}

/// What a target's probes did in a control period.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Its length, in seconds.
    pub seconds: f64,
    /// Allocations recorded.
    pub recorded: u64,
    /// Other calls of allocating functions: left out, failed, nested, lost.
    pub left_out: u64,
    /// Those that no step would record: the kernel's, of caches and sizes that are
    /// not asked for.
    pub passed_over: u64,
    /// Calls of freeing functions.
    pub frees: u64,
    /// CPU time that the target took, traps included, in nanoseconds.
    pub cpu_ns: u64,
}

impl Load {
    /// The load between two readings of a target's counters.
    pub fn between(
        before: &TargetCounters,
        now: &TargetCounters,
        seconds: f64,
        cpu_ns: u64,
    ) -> Self {
        let since = |counter| now.get(counter).saturating_sub(before.get(counter));
        let left_out = [
            Counter::SampledOut,
            Counter::Failed,
            Counter::Nested,
            Counter::LostLedgerFull,
            Counter::LostNoMemory,
            Counter::LostThread,
            Counter::LostUnpaired,
        ];
        let passed_over = [Counter::Filtered, Counter::Movable];
        let frees =
            [Counter::Removed, Counter::UnknownFrees, Counter::DoubleFrees, Counter::Ignored];
        Self {
            seconds,
            recorded: since(Counter::Inserted),
            left_out: left_out.into_iter().map(since).sum(),
            passed_over: passed_over.into_iter().map(since).sum(),
            frees: frees.into_iter().map(since).sum(),
            cpu_ns,
        }
    }

    /// Traps a second.
    pub fn traps_per_second(&self) -> f64 {
        (self.recorded + self.left_out + self.passed_over + self.frees) as f64
            / self.seconds.max(1e-3)
    }

    /// What they cost, in nanoseconds a second.
    pub fn cost_ns(&self, prices: &Prices) -> f64 {
        (self.recorded as f64 * prices.recorded
            + (self.left_out + self.passed_over) as f64 * prices.left_out
            + self.frees as f64 * prices.free)
            / self.seconds.max(1e-3)
    }

    /// What they would cost if every allocation were recorded.
    pub fn cost_in_full_ns(&self, prices: &Prices) -> f64 {
        Self { recorded: self.recorded + self.left_out, left_out: 0, ..*self }.cost_ns(prices)
    }

    /// What they would cost if none were.
    pub fn cost_left_out_ns(&self, prices: &Prices) -> f64 {
        Self { left_out: self.recorded + self.left_out, recorded: 0, ..*self }.cost_ns(prices)
    }

    /// What costs are compared with: CPU time, in nanoseconds a second.
    pub fn cpu_per_second(&self) -> f64 {
        (self.cpu_ns as f64 / self.seconds.max(1e-3)).max(IDLE_SHARE * 1e9)
    }
}
