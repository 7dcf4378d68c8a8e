//! bpf-linker, and the LLVM that it is built with.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::apt;
use super::locate::{self, Linker, Toolchain};
use crate::process::{self, say};

/// The version of bpf-linker.
const VERSION: &str = "0.13.0";

/// The major versions of LLVM that this bpf-linker can be built with.
const LLVM: [u32; 3] = [21, 22, 23];

/// Whether the linker runs: its LLVM may have been removed.
pub fn works(linker: &Linker) -> bool {
    process::succeeds(Command::new(&linker.path).arg("--version"))
}

/// Whether there is a linker for this compiler, or an LLVM to build one with.
pub fn can_be_had(toolchain: &Toolchain) -> bool {
    working(toolchain) || llvm_for(toolchain).is_some()
}

/// Builds the linker if there is none that fits.
pub fn ensure(toolchain: &Toolchain) -> Result<()> {
    if working(toolchain) {
        return Ok(());
    }
    let llvm = llvm_for(toolchain)
        .with_context(|| format!("no LLVM {} or newer to build bpf-linker with", toolchain.llvm))?;
    let prefix = match prefix(llvm) {
        Some(prefix) => prefix,
        None => {
            let reason = "install LLVM, with which bpf-linker is built";
            apt::ensure(&[&package(llvm)], &[], reason)?;
            prefix(llvm).with_context(|| format!("{} brought no LLVM", package(llvm)))?
        }
    };
    let tools = locate::tools_directory().unwrap_or_default();
    say!("building bpf-linker {VERSION} into {}: a minute, once", tools.display());
    // Not optimized, it is built in half the time; what it does is done by LLVM.
    let options = ["--debug", "--no-default-features", "--features", &format!("llvm-{llvm}")];
    let variable = variable(llvm);
    let variables = [
        (variable.as_str(), prefix.as_os_str()),
        ("LLVM_PREFIX", prefix.as_os_str()),
        ("CARGO_PROFILE_DEV_DEBUG", OsStr::new("0")),
    ];
    super::install("bpf-linker", VERSION, &options, &variables)
}

fn working(toolchain: &Toolchain) -> bool {
    locate::linkers().any(|linker| linker.fits(toolchain) && works(&linker))
}

/// The oldest LLVM that understands what the compiler writes: one that is
/// there, or else one that apt has.
fn llvm_for(toolchain: &Toolchain) -> Option<u32> {
    let fitting = || LLVM.into_iter().filter(|&llvm| llvm >= toolchain.llvm);
    fitting()
        .find(|&llvm| prefix(llvm).is_some())
        .or_else(|| fitting().find(|&llvm| apt::candidate(&package(llvm)).is_some()))
}

/// Where the development files of that LLVM are: where its variable says, or
/// where Debian puts them.
fn prefix(llvm: u32) -> Option<PathBuf> {
    if let Some(prefix) = std::env::var_os(variable(llvm)) {
        return Some(prefix.into());
    }
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    prefix.join("include/llvm-c/Core.h").exists().then_some(prefix)
}

/// The variable by which the crate llvm-sys is told where LLVM is.
fn variable(llvm: u32) -> String {
    format!("LLVM_SYS_{llvm}1_PREFIX")
}

fn package(llvm: u32) -> String {
    format!("llvm-{llvm}-dev")
}
