//! How much dearer a target's traps are than the canary's: its stacks are
//! deeper, and its caches are full of other things.
//!
//! The kernel measures how long the programs run. What they took in a target,
//! by what the same numbers of allocations and frees took in the canary, is
//! applied to the whole price of a trap: what the kernel does around the
//! programs suffers from the same caches.

/// Programs that ran for less than this in a control period, in nanoseconds,
/// say too little.
const LEAST_NS: f64 = 100_000.0;
/// What is believed at most: beyond it, something else was measured.
const MOST: f64 = 5.0;
/// Weight of the last measurement.
const WEIGHT: f64 = 0.3;
/// Control periods that are measured at first ...
const AT_FIRST: u32 = 3;
/// ... and then, one in so many: measuring costs, too.
const ONE_IN: u32 = 10;

/// The factor of one target.
#[derive(Clone, Copy, Debug)]
pub struct Factor {
    value: f64,
    /// It is never less.
    least: f64,
    /// Measurements so far.
    measured: u32,
    /// Control periods with probes in since the last one.
    unmeasured: u32,
}

impl Default for Factor {
    fn default() -> Self {
        Self { value: 1.0, least: 1.0, measured: 0, unmeasured: 0 }
    }
}

impl Factor {
    /// Of prices that are a guess, and no canary's: it may be less than 1.
    pub fn of_guess() -> Self {
        Self { least: 0.1, ..Self::default() }
    }

    /// The factor; 1 until it was measured.
    pub fn value(self) -> f64 {
        self.value
    }

    /// Whether the next control period with probes in is to be measured.
    pub fn is_due(self) -> bool {
        self.measured < AT_FIRST || self.unmeasured >= ONE_IN
    }

    /// A control period with probes in has ended. `measured`: for how many
    /// nanoseconds the programs ran, and for how many they would have in the
    /// canary; `None`: nobody measured.
    pub fn learn(&mut self, measured: Option<(f64, f64)>) {
        let Some((took, expected)) = measured.filter(|(_, expected)| *expected >= LEAST_NS) else {
            self.unmeasured = self.unmeasured.saturating_add(1);
            return;
        };
        let found = (took / expected).clamp(self.least, MOST);
        // The first one replaces the guess.
        let weight = if self.measured == 0 { 1.0 } else { WEIGHT };
        self.value += (found - self.value) * weight;
        self.measured = self.measured.saturating_add(1);
        self.unmeasured = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the first measurement counts, that later ones are smoothed,
    /// and that it never falls below the canary's price nor without bound.
    #[test]
    fn learns() {
        let mut factor = Factor::default();
        assert_eq!(factor.value(), 1.0);
        factor.learn(Some((4e6, 2e6)));
        assert_eq!(factor.value(), 2.0);
        factor.learn(Some((1e6, 1e6)));
        assert!((1.6..2.0).contains(&factor.value()), "{factor:?}");
        for _ in 0..50 {
            factor.learn(Some((1e5, 1e6)));
        }
        assert!((1.0..1.001).contains(&factor.value()), "{factor:?}");
        for _ in 0..50 {
            factor.learn(Some((1e12, 1e6)));
        }
        assert!((4.9..=5.0).contains(&factor.value()), "{factor:?}");
        let before = factor.value();
        factor.learn(Some((1e3, 1e3)));
        assert_eq!(factor.value(), before, "too little to say anything");
    }

    /// Check that a guess may have been too dear.
    #[test]
    fn guess() {
        let mut factor = Factor::of_guess();
        factor.learn(Some((1e6, 4e6)));
        assert_eq!(factor.value(), 0.25);
    }

    /// Check that it is measured at first, and then now and again.
    #[test]
    fn is_measured_now_and_again() {
        let mut factor = Factor::default();
        let mut measured = 0;
        for period in 0..AT_FIRST + 10 * (ONE_IN + 1) {
            let due = factor.is_due();
            measured += u32::from(due);
            assert!(due || period >= AT_FIRST);
            factor.learn(due.then_some((2e6, 1e6)));
        }
        assert_eq!(measured, AT_FIRST + 10);
    }
}
