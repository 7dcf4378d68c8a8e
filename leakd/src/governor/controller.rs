//! One target: which step, by what was measured.

use super::gaps::Gaps;
use super::price::{Load, Prices};

/// Mean bytes between samples, as sampling grows thinner.
const SAMPLING: [u64; 3] = [64 << 10, 512 << 10, 4 << 20];
/// A step must be predicted to cost at most this share of the budget.
const RESERVE: f64 = 0.8;
/// A lighter step is taken back when it would cost at most this share ...
const RECOVER: f64 = 0.5;
/// ... for so many control periods.
const PATIENCE: u32 = 15;
/// A window is open for so long, in seconds, and for as long as its probes take
/// to come and go: a control period. Measured at its end, it cannot exceed the
/// budget for longer.
const OPEN: f64 = 1.0;
/// Weight of the last window in how long they are open.
const LENGTH_WEIGHT: f64 = 0.3;
/// Windows further apart than this, in seconds, tell too little.
const LONGEST_CLOSED: f64 = 600.0;

/// How much is recorded of a target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Everything.
    Full,
    /// Samples, by bytes. What is left out needs no return probe.
    Sampled {
        /// Mean bytes between two.
        bytes: u64,
    },
    /// Everything, for a second at a time; in between there are no probes.
    Windows {
        /// Seconds that probes are in, their coming and going included.
        open: f64,
        /// Seconds between two, on average.
        closed: f64,
    },
    /// Nothing: even that costs too much.
    Detached,
}

impl Step {
    /// As clients see it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Sampled { .. } => "sampled",
            Self::Windows { .. } => "windows",
            Self::Detached => "detached",
        }
    }

    /// Mean bytes between samples; 0: none.
    pub const fn sample_bytes(self) -> u64 {
        match self {
            Self::Sampled { bytes } => bytes,
            _ => 0,
        }
    }

    /// The part of the time that probes are in.
    pub fn open_share(self) -> f64 {
        match self {
            Self::Full | Self::Sampled { .. } => 1.0,
            Self::Windows { open, closed } => open / (open + closed),
            Self::Detached => 0.0,
        }
    }

    fn weight(self) -> (u8, f64) {
        match self {
            Self::Full => (0, 0.0),
            Self::Sampled { bytes } => (1, bytes as f64),
            Self::Windows { open, closed } => (2, closed / open),
            Self::Detached => (3, 0.0),
        }
    }

    /// Whether it records less than another.
    pub fn is_below(self, other: Self) -> bool {
        self.weight() > other.weight()
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// The step.
    pub step: Step,
    /// Whether probes are to be in.
    pub open: bool,
    /// The step is another than before.
    pub changed: bool,
}

/// The governor of one target.
#[derive(Clone, Debug)]
pub struct Controller {
    step: Step,
    /// The least thinning that was asked for; 0: none.
    floor_bytes: u64,
    /// Whether samples can be taken.
    samples: bool,
    open: bool,
    /// When the window opened or closed, in seconds.
    turned: f64,
    /// Control periods with reserve.
    patience: u32,
    /// Over the last control period with probes in, of the target's CPU time.
    cost: f64,
    /// The same, of one CPU, averaged over windows and what is between them.
    cost_of_cpu: f64,
    /// What recording everything would cost, of the target's CPU time.
    in_full: f64,
    traps: f64,
    windows: u64,
    /// Seconds that probes are in when they are in for a window.
    length: f64,
    gaps: Gaps,
    /// The time that probes are out this time, in means.
    gap: f64,
}

impl Controller {
    /// Begins at `now` (seconds) with probes in; `sample_bytes`: the operator
    /// wants no more than such samples; 0: everything.
    pub fn new(now: f64, sample_bytes: u64) -> Self {
        Self {
            step: lightest(sample_bytes),
            floor_bytes: sample_bytes,
            samples: true,
            open: true,
            turned: now,
            patience: 0,
            cost: 0.0,
            cost_of_cpu: 0.0,
            in_full: 0.0,
            traps: 0.0,
            windows: 1,
            length: OPEN,
            gaps: Gaps::default(),
            gap: 1.0,
        }
    }

    /// The same of a target that is recorded in whole or not at all.
    pub fn without_samples(now: f64) -> Self {
        Self { samples: false, ..Self::new(now, 0) }
    }

    /// The step.
    pub fn step(&self) -> Step {
        self.step
    }

    /// Whether probes are in.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// What the target paid over the last control period that was measured,
    /// averaged over windows and what is between: a share of its CPU time.
    pub fn cost(&self) -> f64 {
        self.cost * self.step.open_share()
    }

    /// The same as a share of one CPU.
    pub fn cost_of_cpu(&self) -> f64 {
        self.cost_of_cpu * self.step.open_share()
    }

    /// What windows as far apart as can be would cost: a share of the target's CPU
    /// time. It is let go where that is too much.
    pub fn least_cost(&self) -> f64 {
        self.in_full * self.length / (self.length + LONGEST_CLOSED)
    }

    /// Traps a second, in the last control period that was measured.
    pub fn traps_per_second(&self) -> f64 {
        self.traps
    }

    /// A window has ended that lasted for so many seconds, from the first probe
    /// that went in until the last was out.
    pub fn window_lasted(&mut self, seconds: f64) {
        let length = seconds.clamp(OPEN, 10.0 * OPEN);
        self.length += (length - self.length) * LENGTH_WEIGHT;
        if let Step::Windows { open, .. } = &mut self.step {
            *open = self.length;
        }
    }

    /// Windows so far.
    pub fn windows(&self) -> u64 {
        self.windows
    }

    /// The end of a control period at `now`. `load` is what was measured, if
    /// probes were in; `budget`: a share of the target's CPU time.
    pub fn tick(
        &mut self,
        now: f64,
        load: Option<&Load>,
        prices: &Prices,
        budget: f64,
    ) -> Decision {
        let before = self.step;
        if let Some(load) = load.filter(|_| self.open) {
            self.cost_of_cpu = load.cost_ns(prices) / 1e9;
            self.cost = load.cost_ns(prices) / load.cpu_per_second();
            self.in_full = load.cost_in_full_ns(prices) / load.cpu_per_second();
            self.traps = load.traps_per_second();
            self.decide(load, prices, budget);
        }
        match self.step {
            Step::Full | Step::Sampled { .. } => self.turn(now, true),
            Step::Detached => self.turn(now, false),
            Step::Windows { closed, .. } => {
                let length = if self.open { OPEN } else { (closed * self.gap).max(OPEN) };
                // Half a period early is nearer than half a period late.
                if now - self.turned >= length - 0.5 || (self.open && before != self.step) {
                    self.turn(now, !self.open);
                }
            }
        }
        Decision { step: self.step, open: self.open, changed: self.step != before }
    }

    fn decide(&mut self, load: &Load, prices: &Prices, budget: f64) {
        let wanted = self.lightest_within(load, prices, budget * RESERVE);
        let over = match self.step {
            Step::Full | Step::Sampled { .. } => self.cost > budget,
            // The duty is made for the budget; it is wrong if this is.
            Step::Windows { .. } => self.cost() > budget,
            Step::Detached => false,
        };
        if over {
            self.patience = 0;
            // Sampling that was to suffice and did not goes on to the next.
            self.step = if wanted.is_below(self.step) { wanted } else { self.next(budget) };
            return;
        }
        let reserve = self.lightest_within(load, prices, budget * RECOVER);
        if self.step.is_below(reserve) {
            self.patience += 1;
            if self.patience >= PATIENCE {
                self.patience = 0;
                self.step = reserve;
            }
        } else {
            self.patience = 0;
        }
    }

    /// The step that records most and is predicted to cost at most `limit` (a
    /// share of the target's CPU time).
    fn lightest_within(&self, load: &Load, prices: &Prices, limit: f64) -> Step {
        let cpu = load.cpu_per_second();
        if self.in_full <= limit {
            return lightest(self.floor_bytes);
        }
        if self.samples && load.cost_left_out_ns(prices) / cpu <= limit * 0.9 {
            let bytes = SAMPLING.into_iter().find(|bytes| *bytes >= self.floor_bytes);
            return Step::Sampled { bytes: bytes.unwrap_or(self.floor_bytes) };
        }
        self.windows_within(limit)
    }

    /// The step after this one, where prediction has failed.
    fn next(&self, budget: f64) -> Step {
        match self.step {
            Step::Full if !self.samples => self.windows_within(budget * RESERVE),
            Step::Full => Step::Sampled { bytes: SAMPLING[0].max(self.floor_bytes) },
            Step::Sampled { bytes } => match SAMPLING.into_iter().find(|next| *next > bytes) {
                Some(bytes) => Step::Sampled { bytes },
                None => self.windows_within(budget * RESERVE),
            },
            Step::Windows { closed, .. } => match self.windows_within(budget * RESERVE) {
                Step::Windows { open, closed: next } if next <= closed => {
                    Step::Windows { open, closed: (closed * 2.0).min(LONGEST_CLOSED) }
                }
                other => other,
            },
            Step::Detached => Step::Detached,
        }
    }

    /// Windows so far apart that the cost while they are open comes to `limit` on
    /// average.
    fn windows_within(&self, limit: f64) -> Step {
        let closed = self.length * (self.in_full / limit - 1.0);
        if closed <= LONGEST_CLOSED {
            Step::Windows { open: self.length, closed: closed.max(OPEN) }
        } else {
            Step::Detached
        }
    }

    fn turn(&mut self, now: f64, open: bool) {
        if self.open != open {
            self.open = open;
            self.turned = now;
            self.windows += u64::from(open);
            if !open {
                self.gap = self.gaps.draw();
            }
        }
    }
}

/// What is asked for, budget apart.
fn lightest(floor_bytes: u64) -> Step {
    if floor_bytes == 0 { Step::Full } else { Step::Sampled { bytes: floor_bytes } }
}
