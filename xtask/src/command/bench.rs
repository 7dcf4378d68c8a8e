//! `cargo xtask bench`

use anyhow::Result;

use super::test;
use crate::process;
use crate::{toolchain, workspace};

/// The benchmark: an example of the package leakd, so that it sees the library
/// and stays out of what is installed.
const BENCHMARK: &str = "bench";

/// Builds the benchmark and runs it as root.
pub fn run(arguments: &[String]) -> Result<()> {
    toolchain::ensure()?;
    test::install_programs()?;
    process::run(
        workspace::cargo().args(["build", "--locked", "--release", "--package", "leakd"]).args([
            "--bins",
            "--example",
            BENCHMARK,
        ]),
    )?;
    let program = workspace::programs(true).join("examples").join(BENCHMARK);
    process::run(process::as_root(program, &[], "attach probes to a process")?.args(arguments))
}
