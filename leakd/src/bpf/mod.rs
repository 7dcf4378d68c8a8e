//! The bpf(2) system call: the one place that speaks to it.
//!
//! aya makes the maps and loads what it can; [`program`] and [`link`] do what
//! aya 0.14 cannot: programs for uprobe_multi and uprobe sessions must be
//! loaded with that attach type. [`iterator`] asks for one process' threads,
//! which aya cannot either.
//!
//! Links are made and closed by children of this process (`child`, `create`,
//! `release`): a kill -9 in the middle of either would leave probes behind.

mod child;
mod cpus;
mod create;
mod diagnostics;
pub mod features;
pub mod iterator;
pub mod link;
mod map_type_information;
pub mod object;
pub mod program;
pub mod program_info;
mod release;
pub mod sys;
