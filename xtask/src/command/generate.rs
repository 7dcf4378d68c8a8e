//! `cargo xtask generate`

use anyhow::Result;

use crate::process::{self, say};
use crate::{toolchain, workspace};

/// Writes what is made from the command line's definition: man pages and
/// completions. The test that holds them to it does the writing, too.
pub fn run() -> Result<()> {
    toolchain::ensure()?;
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--locked", "--quiet", "--package", "leakd", "--test", "generated"]);
    process::run(cargo.env("LEAKD_WRITE_GENERATED", "1"))?;
    say!("wrote docs/generated");
    Ok(())
}
