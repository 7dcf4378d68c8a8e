//! The report: its model and its renderers.
//!
//! [`input`] is what the engine saw, [`build()`] turns it into the [`model`]
//! that `docs/REPORT.md` describes, and [`json`], [`text`] and
//! [`heap_summary`] show that model. A renderer adds nothing of its own. [`scan`] is
//! the model of what a scan found.

pub mod bad_free;
pub mod build;
mod heap;
pub mod input;
pub mod json;
pub mod kernel;
pub mod memory;
pub mod model;
pub mod rank;
pub mod scan;
pub mod text;
pub mod time;

pub use build::{Settings, build};
pub use heap::heap_summary;
pub use model::Report;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod schema_tests;
