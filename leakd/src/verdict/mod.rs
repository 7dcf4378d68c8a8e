//! What the numbers of a call site say about its blocks: pure functions.
//!
//! | file | concern |
//! |---|---|
//! | [`exhaustion`] | when memory will be used up |
//! | [`survival`] | how long blocks live, freed and outstanding ones together |
//! | [`births`] | when the outstanding ones were allocated |
//! | [`growth`] | how fast a series grows, and how sure that is |
//! | [`sites`] | what all call sites of a process hold over time |
//! | [`judge`] | the verdict on a call site, and on a process |
//!
//! `docs/VERDICTS.md` explains the verdicts to who reads them; keep both alike.

pub mod births;
pub mod exhaustion;
pub mod growth;
pub mod judge;
pub mod sites;
pub mod survival;

use serde::{Deserialize, Serialize};

/// What the memory of a call site, or of a process, does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Too little is known.
    #[default]
    Undetermined,
    /// It has started not long ago, or its growth dies down.
    WarmUp,
    /// It does not grow.
    Stable,
    /// It goes up and down between bounds, or has filled one.
    CacheLike,
    /// It grows steadily; whether for good is not known.
    Growing,
    /// It holds more and more blocks that nothing takes back.
    Leak,
}

impl Verdict {
    /// As people read it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Undetermined => "undetermined",
            Self::WarmUp => "warm-up",
            Self::Stable => "stable",
            Self::CacheLike => "cache-like",
            Self::Growing => "growing",
            Self::Leak => "leak",
        }
    }

    /// How much it asks for somebody to look: leaks first, then what grows; the
    /// others are alike.
    pub const fn urgency(self) -> u8 {
        match self {
            Self::Leak => 2,
            Self::Growing => 1,
            _ => 0,
        }
    }
}

/// How far a leak can be told from what looks like one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// Not all was seen.
    Low,
    /// No block of the call site was ever freed: a cache that is being filled at a
    /// steady pace looks the same.
    Medium,
    /// The call site's other blocks are freed, and these are not.
    High,
}

impl Confidence {
    /// As people read it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}
