//! `cargo xtask bench`

use std::ffi::OsStr;

use anyhow::Result;

use super::test;
use crate::process::{self, say};
use crate::{peers, toolchain, workspace};

/// The benchmark: an example of the package leakd, so that it sees the library
/// and stays out of what is installed.
const BENCHMARK: &str = "bench";

/// The first argument that runs the other one: how often verdicts are right.
const VERDICTS: &str = "verdicts";

/// Tells the benchmark where memleak of libbpf-tools is unpacked.
const PEERS: &str = "LEAKD_BENCH_PEERS";

/// Tools to compare with that Debian has, beside those that tests use.
const PACKAGES: [&str; 2] = ["bpftrace", "heaptrack"];

/// Builds the benchmark and runs it as root; gives its exit status. Not `release`: as
/// the tests are built, which have it built then. What tracing costs is in the BPF
/// programs, which are the same.
pub fn run(release: bool, arguments: &[String]) -> Result<u8> {
    say!("the benchmark is built first");
    toolchain::ensure()?;
    if let Some((VERDICTS, rest)) = arguments.split_first().map(|(first, rest)| (&**first, rest)) {
        return run_example(VERDICTS, release, &[], rest);
    }
    test::install_programs()?;
    toolchain::apt::ensure(&PACKAGES, &[], "install what leakd is compared with")?;
    let peers = peers::ensure();
    let variables: Vec<_> = peers.iter().map(|path| (PEERS, path.as_os_str())).collect();
    run_example(BENCHMARK, release, &variables, arguments)
}

/// Builds an example with the programs, and runs it as root.
fn run_example(
    name: &str,
    release: bool,
    variables: &[(&str, &OsStr)],
    arguments: &[String],
) -> Result<u8> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--locked", "--package", "leakd", "--bins", "--example", name]);
    if release {
        cargo.arg("--release");
    }
    process::run(&mut cargo)?;
    let program = workspace::programs(release).join("examples").join(name);
    let mut command = process::as_root(program, variables, "attach probes to a process")?;
    process::outlive_interrupts()?;
    let status = process::status(command.args(arguments))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(2))
}
