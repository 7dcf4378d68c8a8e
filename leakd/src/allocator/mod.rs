//! Which functions of an object hand memory out, and where to probe them.

mod custom;
mod discover;
mod family;
mod forward;
mod kind;
pub mod placement;

pub use custom::{CustomFunction, CustomFunctionError};
pub use discover::{Allocator, Discovery, Probe, Skipped, SkippedBecause, discover};
pub use kind::Kind;
pub use placement::{Cost, Emulation, Placement};

#[cfg(test)]
mod kernel_tests;
#[cfg(test)]
mod tests;
