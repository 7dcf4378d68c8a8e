//! Are stacks exact? Each proof is against something that knows nothing of
//! leakd, on the running kernel with real processes.
//!
//! | file | what it proves |
//! |---|---|
//! | `gdb` | stacks are those that gdb finds, frame by frame |
//! | `heal` | stacks end where a table is missing, until it has come |
//! | `replaced` | what is announced is what was counted, while tables come and go |
//! | `signal` | what a signal interrupted gets the name of its own function |
//! | `bottom` | stacks of Debian's programs are whole, page faults' too |
//! | `torn` | no stack is torn where programs preempt each other |
//! | `verified` | the programs do not grow on the verifier |
//!
//! Needs root, uprobes, gcc, g++, gdb and the programs that `bottom` names;
//! fails, saying so, where one of them is missing.

mod bottom;
mod gdb;
mod heal;
mod replaced;
mod signal;
mod support;
mod torn;
mod verified;
