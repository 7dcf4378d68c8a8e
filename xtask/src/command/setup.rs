//! `cargo xtask setup`

use anyhow::Result;

use crate::process::say;
use crate::toolchain;

/// Finds or installs the BPF toolchain and says what it is.
pub fn run() -> Result<()> {
    let tools = toolchain::ensure()?;
    let (major, minor) = tools.toolchain.version;
    let rustc = tools.toolchain.rustc();
    say!("BPF compiler: {} ({major}.{minor})", rustc.display());
    say!("BPF linker: {}", tools.linker.path.display());
    Ok(())
}
