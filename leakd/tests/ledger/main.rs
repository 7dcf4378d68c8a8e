//! The ledger against a model, on the running kernel with real processes.
//!
//! A driver process does random sequences of allocator calls; a model says
//! what the ledger must then hold, from what the calls returned and from
//! nothing else. The engine is used directly: attach, look, detach.
//!
//! | file | what it proves |
//! |---|---|
//! | `sequences` | random interleavings, for each allocator and probe method |
//! | `sampled` | sums of weights estimate the truth; frees cancel exactly |
//! | `full` | a full ledger keeps what is old and counts what is lost |
//! | `interposed` | allocators in front of allocators |
//! | `left` | calls that never return |
//! | `methods` | the ways to probe that this kernel has |
//!
//! Needs root, uprobes, a C compiler and Debian's libjemalloc2,
//! libtcmalloc-minimal4 and libmimalloc2.0; fails, saying so, where one of
//! them is missing.

mod driver;
mod full;
#[path = "../support/host.rs"]
mod host;
mod interposed;
mod left;
mod methods;
mod model;
mod operation;
mod programs;
mod sampled;
mod sequences;
mod session;
mod trace;
