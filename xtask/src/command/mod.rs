//! The commands, one module each.

pub mod bench;
pub mod build;
pub mod generate;
pub mod lint;
pub mod package;
pub mod run;
pub mod setup;
pub mod test;
