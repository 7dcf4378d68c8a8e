//! The governor keeps what tracing costs within the operator's budget.
//!
//! | file | concern |
//! |---|---|
//! | [`price`] | what a trap costs on this machine, from the canary |
//! | [`factor`] | how much dearer it is in a target, as measured there |
//! | [`controller`] | one target: which step, by what was measured |
//! | [`gaps`] | when windows come |
//! | [`machine`] | all targets: who gives way when they cost too much together |
//!
//! All of it is pure: it is told what was measured and says what to do; the
//! daemon does it. A step down follows at the end of the control period in
//! which the budget was exceeded, straight to the step that is predicted to
//! keep it. A step up is taken only after a while of reserve.

pub mod controller;
pub mod factor;
pub mod gaps;
pub mod machine;
pub mod price;

pub use controller::{Controller, Decision, Step};
pub use factor::Factor;
pub use machine::shares;
pub use price::{Load, Prices};

use std::time::Duration;

/// What is measured and decided at a time.
pub const PERIOD: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
