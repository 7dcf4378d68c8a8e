//! What these tests share.

pub mod code;
pub mod process;
pub mod programs;
pub mod trace;
