//! End-to-end tests: `leakctl` on real programs, on the running kernel.
//!
//! What each program has planted and how that was proven independently is in
//! `../README.md`. Nothing is skipped: where root or the kernel's uprobes are
//! missing the tests fail and say so.

mod allocators;
mod bad_input;
mod daemon;
mod diagnostics;
mod doctor;
mod exactness;
mod frees;
mod harness;
#[path = "../support/host.rs"]
mod host;
mod jit;
mod kernel;
mod languages;
mod lifecycle;
mod limited;
mod mappings;
mod real_programs;
mod run_command;
mod scan;
mod support;
mod verdicts;
