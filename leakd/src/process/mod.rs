//! What /proc tells of a process.
//!
//! A pid is only a number, and the kernel gives it out again. Where that
//! matters, a process is held by a pidfd and a handle on its directory in
//! /proc ([`ProcessHandle`]); both keep meaning the same process.

mod children;
mod error;
mod executable;
mod handle;
mod info;
mod limits;
mod mapping;
mod object;

pub use children::find_children;
pub use error::ProcessError;
pub use handle::ProcessHandle;
pub use info::{ProcessInfo, inspect};
pub use limits::memory_is_limited;
pub use mapping::{ExecutableMapping, MappingKind, mappings, runs_under_valgrind};
pub use object::open_object;

#[cfg(test)]
mod tests;
