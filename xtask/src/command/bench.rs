//! `cargo xtask bench`

use anyhow::Result;

use crate::process;
use crate::toolchain::apt::Service;
use crate::{toolchain, workspace};

/// The benchmark: an example of the package leakd, so that it sees the library
/// and stays out of what is installed.
const BENCHMARK: &str = "bench";

/// Debian packages of the compiler for the traced program, of the server that
/// is attached to, and of the tool that leakd is compared with.
const PACKAGES: [&str; 4] = ["bpftrace", "gcc", "redis-server", "redis-tools"];

/// The service that comes with them; the benchmark starts a server of its own.
const SERVICES: [Service; 1] = [Service { package: "redis-server", unit: "redis-server.service" }];

/// Names the executable of libbpf-tools' memleak: the better comparison, where
/// there is one.
const MEMLEAK: &str = "LEAKD_BENCH_MEMLEAK";

/// Builds the benchmark and runs it as root.
pub fn run(arguments: &[String]) -> Result<()> {
    toolchain::ensure()?;
    toolchain::apt::ensure(&PACKAGES, &SERVICES, "install what the benchmark measures with")?;
    process::run(
        workspace::cargo().args(["build", "--locked", "--release", "--package", "leakd"]).args([
            "--bins",
            "--example",
            BENCHMARK,
        ]),
    )?;
    let program = workspace::programs(true).join("examples").join(BENCHMARK);
    let memleak = std::env::var_os(MEMLEAK);
    let variables: Vec<_> = memleak.iter().map(|path| (MEMLEAK, path.as_os_str())).collect();
    let mut command = process::as_root(program, &variables, "attach probes to a process")?;
    process::run(command.args(arguments))
}
