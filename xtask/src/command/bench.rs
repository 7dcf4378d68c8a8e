//! `cargo xtask bench`

use anyhow::Result;

use super::test;
use crate::process;
use crate::{toolchain, workspace};

/// The benchmark: an example of the package leakd, so that it sees the library
/// and stays out of what is installed.
const BENCHMARK: &str = "bench";

/// Names the executable of libbpf-tools' memleak: the better comparison, where
/// there is one.
const MEMLEAK: &str = "LEAKD_BENCH_MEMLEAK";

/// The tool that leakd is compared with where there is none.
const BPFTRACE: [&str; 1] = ["bpftrace"];

/// Builds the benchmark and runs it as root.
pub fn run(arguments: &[String]) -> Result<()> {
    toolchain::ensure()?;
    test::install_programs()?;
    let memleak = std::env::var_os(MEMLEAK);
    if memleak.is_none() {
        toolchain::apt::ensure(&BPFTRACE, &[], "install what leakd is compared with")?;
    }
    process::run(
        workspace::cargo().args(["build", "--locked", "--release", "--package", "leakd"]).args([
            "--bins",
            "--example",
            BENCHMARK,
        ]),
    )?;
    let program = workspace::programs(true).join("examples").join(BENCHMARK);
    let variables: Vec<_> = memleak.iter().map(|path| (MEMLEAK, path.as_os_str())).collect();
    let mut command = process::as_root(program, &variables, "attach probes to a process")?;
    process::run(command.args(arguments))
}
