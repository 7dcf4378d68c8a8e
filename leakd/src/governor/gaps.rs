//! Times between windows: irregular, so that no rhythm of a program's own can
//! hide from them.
//!
//! Exponentially distributed, because then the end of a block that was recorded
//! in one window falls into a later one by the share of the time that windows
//! are open, however long it lived. Drawn from each eighth of the distribution
//! in turn, in random order, so that their mean is kept closely.

/// Parts of the distribution.
const PARTS: usize = 8;
/// The longest, in means.
const LONGEST: f64 = 5.0;

/// A series of such times.
#[derive(Clone, Debug)]
pub struct Gaps {
    random: u64,
    order: [u8; PARTS],
    next: usize,
}

impl Default for Gaps {
    /// The series is the same for all: nothing depends on its being secret.
    fn default() -> Self {
        Self { random: 0x9e37_79b9_7f4a_7c15, order: [0, 1, 2, 3, 4, 5, 6, 7], next: 0 }
    }
}

impl Gaps {
    /// The next one, in means.
    pub fn draw(&mut self) -> f64 {
        if self.next.is_multiple_of(PARTS) {
            self.next = 0;
            for index in (1..PARTS).rev() {
                let other = (self.uniform() * (index + 1) as f64) as usize;
                self.order.swap(index, other.min(index));
            }
        }
        let part = f64::from(self.order[self.next]);
        self.next += 1;
        let share = (part + self.uniform()) / PARTS as f64;
        (-(1.0 - share).ln()).min(LONGEST)
    }

    /// From 0 up to 1 (xorshift64).
    fn uniform(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the mean is 1, that half are below ln 2, and that no few in a
    /// row are far from the mean.
    #[test]
    fn exponential() {
        let mut gaps = Gaps::default();
        let drawn: Vec<f64> = (0..8000).map(|_| gaps.draw()).collect();
        let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
        let short = drawn.iter().filter(|gap| **gap < std::f64::consts::LN_2).count();
        assert!((3900..4100).contains(&short), "{short}");
        for block in drawn.chunks(PARTS) {
            let mean = block.iter().sum::<f64>() / PARTS as f64;
            assert!((0.7..1.4).contains(&mean), "{block:?}");
        }
        assert!(drawn.windows(2).any(|pair| pair[0] > pair[1]));
    }
}
