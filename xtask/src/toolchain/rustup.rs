//! What rustup can do for us.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use super::linker;
use super::locate::{self, Toolchain};
use crate::process::{self, say};

/// How long a component may take to come. Where Rust's servers are cut off
/// without an answer, rustup would try for many minutes.
const PATIENCE: Duration = Duration::from_secs(90);

/// Why rustup cannot give the source of `core`; `None` if it may.
pub fn why_not() -> Option<String> {
    if !process::in_path("rustup") {
        return Some("it is not installed".into());
    }
    let Some(toolchain) = active() else {
        return Some("this cargo is not one of rustup's".into());
    };
    let (major, minor) = toolchain.version;
    if !toolchain.recent() {
        let least = env!("CARGO_PKG_RUST_VERSION");
        return Some(format!("its Rust {major}.{minor} is older than {least}"));
    }
    if !linker::can_be_had(&toolchain) {
        let llvm = toolchain.llvm;
        return Some(format!("there is no LLVM {llvm} here, which its Rust {major}.{minor} needs"));
    }
    None
}

/// Adds the source of `core` to the toolchain in use.
pub fn add_source() -> Result<()> {
    say!("rustup: adding rust-src to the toolchain in use");
    run(&["component", "add", "rust-src"])
}

/// Runs rustup on the toolchain in use.
pub fn run(arguments: &[&str]) -> Result<()> {
    if !process::in_path("rustup") {
        bail!("rustup is not installed");
    }
    let mut rustup = Command::new("rustup");
    rustup.args(arguments).env("RUSTUP_MAX_RETRIES", "1").env("RUSTUP_DOWNLOAD_TIMEOUT", "30");
    process::run_within(&mut rustup, PATIENCE)
}

/// The toolchain in use, if it is one of rustup's.
fn active() -> Option<Toolchain> {
    let sysroot = locate::active_sysroot()?;
    let of_rustup = sysroot.parent().is_some_and(|parent| parent.ends_with("toolchains"));
    of_rustup.then(|| Toolchain::at(&sysroot)).flatten()
}
