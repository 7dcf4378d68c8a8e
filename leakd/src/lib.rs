//! The engine, the views and the command line of leakd.
//!
//! Data goes one way: probe -> ledger (BPF maps) -> snapshot -> report model
//! -> renderers. `docs/ARCHITECTURE.md` is the map.

// Only the command line and the daemon's last words go to standard error by themselves.
#![cfg_attr(not(test), warn(clippy::print_stderr))]

#[cfg(test)]
mod allocation_peak;
pub mod allocator;
pub mod bpf;
pub mod btf;
pub mod canary;
pub mod cli;
pub mod client;
pub mod config;
pub mod daemon;
pub mod duration;
pub mod elf;
pub mod engine;
pub mod governor;
pub mod kernel;
pub mod launch;
pub mod preflight;
pub mod process;
pub mod protocol;
pub mod report;
pub mod resident;
pub mod scan;
pub mod server;
pub mod symbol;
pub mod terminal;
mod thread_time;
pub mod top;
pub mod trace;
pub mod unwind;
pub mod verdict;
pub mod watch;
