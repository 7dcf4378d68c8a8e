//! The bpf(2) system call: the one place that speaks to it.

pub mod sys;
