//! Whether survivors go on being allocated.

/// Groups that the time is divided into.
const GROUPS: usize = 6;
/// Groups that must hold some: lumps every quarter of the time do.
const FILLED: usize = 4;
/// Survivors that it takes: with fewer, evenly spread, two groups in six are empty by
/// chance too often.
pub const FEWEST: u64 = 20;
/// The largest group holds no more than this share: a step or two are no leak.
const LARGEST: f64 = 0.6;
/// What the second half of the time has of what the first has, to count as steady. A
/// cache whose keys repeat takes in fewer and fewer new ones: where a share f of it is
/// full in the end, that is sqrt(1 - f). More than the root of 1/2, and it is less than
/// half full ...
const STEADY: f64 = std::f64::consts::FRAC_1_SQRT_2;
/// ... and less than this, and it is two thirds full: the rest is soon there.
const SLOWING: f64 = 0.58;

/// How survivors are spread over the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Evenly.
    Steady,
    /// Fewer and fewer, not by much.
    Slowing,
    /// Most at the beginning.
    Fading,
    /// In a step or two.
    Steps,
    /// Too few to tell.
    Few,
}

impl Pace {
    /// By the number of survivors in each part of the time, oldest first.
    pub fn of(parts: &[u64]) -> Self {
        let whole = Self::plain(parts);
        if matches!(whole, Self::Steady | Self::Few) {
            return whole;
        }
        // A table that was filled at the beginning may be followed by a leak.
        let rest = parts.get(parts.len() / GROUPS..).unwrap_or_default();
        if Self::plain(rest) == Self::Steady { Self::Steady } else { whole }
    }

    fn plain(parts: &[u64]) -> Self {
        let all: u64 = parts.iter().sum();
        if all < FEWEST || parts.len() < GROUPS {
            return Self::Few;
        }
        let groups = groups(parts);
        let filled = groups.iter().filter(|group| **group > 0).count();
        let largest = groups.iter().copied().max().unwrap_or(0) as f64;
        let half: u64 = groups[..GROUPS / 2].iter().sum();
        let (before, after) = (half as f64, (all - half) as f64);
        // A count may be off by twice its root.
        let at_most = after + 2.0 * after.sqrt();
        if at_most < SLOWING * before {
            return Self::Fading;
        }
        if filled < FILLED || largest > LARGEST * all as f64 {
            return Self::Steps;
        }
        if at_most < STEADY * before { Self::Slowing } else { Self::Steady }
    }
}

/// The parts in six groups.
pub fn groups(parts: &[u64]) -> [u64; GROUPS] {
    let mut groups = [0; GROUPS];
    for (index, part) in parts.iter().enumerate() {
        groups[index * GROUPS / parts.len().max(1)] += part;
    }
    groups
}
