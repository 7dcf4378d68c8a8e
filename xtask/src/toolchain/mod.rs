//! The tools that it takes to build BPF programs: found, or installed.
//!
//! Two ways lead there. With rustup: the source of `core` is added to the
//! toolchain in use. With Debian's packages, where Rust's own servers cannot be
//! reached: rustc-web, cargo-web and rust-web-src. Both then need a bpf-linker,
//! which is built with Debian's LLVM.

pub mod apt;
pub mod linker;
pub mod locate;
pub mod rustup;

use anyhow::{Context, Result, bail};

use crate::process::{self, say};
use crate::workspace;
use locate::{Toolchain, Tools};

/// The compiler as Debian packages.
const DEBIAN_COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// Finds the tools, or installs what is missing.
pub fn ensure() -> Result<Tools> {
    match locate::find() {
        Ok(tools) if linker::works(&tools.linker) => return Ok(tools),
        Ok(tools) => say!("{} does not run", tools.linker.path.display()),
        Err(missing) => say!("{missing}"),
    }
    let toolchain = match compiler() {
        Some(toolchain) => toolchain,
        None => install_compiler()?,
    };
    linker::ensure(&toolchain)?;
    match locate::find() {
        Ok(tools) => Ok(tools),
        Err(missing) => bail!("after the installation: {missing}"),
    }
}

/// A compiler that is already there and for which a linker can be had.
fn compiler() -> Option<Toolchain> {
    locate::toolchains().filter(Toolchain::complete).find(linker::can_be_had)
}

fn install_compiler() -> Result<Toolchain> {
    if std::env::var_os(locate::SYSROOT_VARIABLE).is_some_and(|value| !value.is_empty()) {
        let variable = locate::SYSROOT_VARIABLE;
        bail!("{variable} names no Rust installation with the source of `core` and a known LLVM");
    }
    if let Some(reason) = rustup::why_not() {
        say!("rustup cannot be used: {reason}");
    } else if let Err(error) = rustup::add_source() {
        say!("rustup could not add rust-src: {error:#}");
    } else if let Some(toolchain) = compiler() {
        return Ok(toolchain);
    }
    say!("using Debian's packages instead");
    apt::ensure(&DEBIAN_COMPILER, &[], "install a compiler for BPF")?;
    compiler().with_context(|| {
        format!(
            "Debian's rustc-web is older than Rust {}, or there is no LLVM package for it",
            env!("CARGO_PKG_RUST_VERSION")
        )
    })
}

/// Builds a program from crates.io into the tools directory.
pub fn install(
    name: &str,
    version: &str,
    options: &[&str],
    variables: &[(&str, &std::ffi::OsStr)],
) -> Result<()> {
    let directory = locate::tools_directory()
        .context("neither XDG_DATA_HOME nor HOME says where tools can be put")?;
    let mut cargo = workspace::cargo();
    cargo.args(["install", name, "--quiet", "--locked", "--force", "--version", version, "--root"]);
    cargo.arg(directory).args(options);
    // Not the workspace's: what is built there is thrown away afterwards.
    cargo.env_remove("CARGO_TARGET_DIR").envs(variables.iter().copied());
    process::run(&mut cargo)
        .with_context(|| format!("{name} {version} could not be built from crates.io"))
}
