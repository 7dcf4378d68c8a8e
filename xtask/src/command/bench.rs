//! `cargo xtask bench`

use std::ffi::OsStr;

use anyhow::Result;

use super::test;
use crate::process;
use crate::{toolchain, workspace};

/// The benchmark: an example of the package leakd, so that it sees the library
/// and stays out of what is installed.
const BENCHMARK: &str = "bench";

/// The first argument that runs the other one: how often verdicts are right.
const VERDICTS: &str = "verdicts";

/// Names the executable of libbpf-tools' memleak: the better comparison, where
/// there is one.
const MEMLEAK: &str = "LEAKD_BENCH_MEMLEAK";

/// The tool that leakd is compared with where there is none.
const BPFTRACE: [&str; 1] = ["bpftrace"];

/// Builds the benchmark and runs it as root.
pub fn run(arguments: &[String]) -> Result<()> {
    toolchain::ensure()?;
    if let Some((VERDICTS, rest)) = arguments.split_first().map(|(first, rest)| (&**first, rest)) {
        return run_example(VERDICTS, &[], rest);
    }
    test::install_programs()?;
    let memleak = std::env::var_os(MEMLEAK);
    if memleak.is_none() {
        toolchain::apt::ensure(&BPFTRACE, &[], "install what leakd is compared with")?;
    }
    let variables: Vec<_> = memleak.iter().map(|path| (MEMLEAK, path.as_os_str())).collect();
    run_example(BENCHMARK, &variables, arguments)
}

/// Builds an example with the programs, and runs it as root.
fn run_example(name: &str, variables: &[(&str, &OsStr)], arguments: &[String]) -> Result<()> {
    process::run(
        workspace::cargo().args(["build", "--locked", "--release", "--package", "leakd"]).args([
            "--bins",
            "--example",
            name,
        ]),
    )?;
    let program = workspace::programs(true).join("examples").join(name);
    let mut command = process::as_root(program, variables, "attach probes to a process")?;
    process::run(command.args(arguments))
}
