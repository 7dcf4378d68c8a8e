//! `cargo xtask build`

use anyhow::Result;

use crate::process::{self, say};
use crate::{toolchain, workspace};

/// Builds the daemon and the client.
pub fn run(release: bool) -> Result<()> {
    toolchain::ensure()?;
    packages(release, &["leakd"])?;
    let programs = workspace::programs(release);
    say!("built {0}/leakd and {0}/leakctl", programs.display());
    Ok(())
}

/// Builds the programs of some packages of the workspace.
pub fn packages(release: bool, names: &[&str]) -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--locked", "--bins"]);
    for name in names {
        cargo.args(["--package", name]);
    }
    if release {
        cargo.arg("--release");
    }
    process::run(&mut cargo)
}
