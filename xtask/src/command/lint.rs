//! `cargo xtask lint`

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{self, say};
use crate::toolchain::locate::{RUSTFLAGS, Tools};
use crate::{toolchain, workspace};

/// cargo-deny, which checks licences and sources of the dependencies.
const DENY_VERSION: &str = "0.20.2";

/// Lines that a file may have.
const LONGEST: usize = 600;

/// Files that are written by hand, and so held to [`LONGEST`].
const WRITTEN: [&str; 7] = ["rs", "toml", "md", "c", "cc", "py", "sh"];

/// Checks format, warnings, dependencies and file sizes.
pub fn run() -> Result<()> {
    let tools = toolchain::ensure()?;
    components()?;

    say!("format");
    if !process::status(workspace::cargo().args(["fmt", "--all", "--check"]))?.success() {
        bail!("the format is not rustfmt's: run `cargo fmt --all`");
    }

    say!("file sizes");
    file_sizes()?;

    say!("warnings");
    process::run(workspace::cargo().args([
        "clippy",
        "--locked",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;

    say!("warnings, BPF programs");
    clippy_for_bpf(&tools, None)?;
    say!("warnings, BPF programs for aarch64");
    clippy_for_bpf(&tools, Some("aarch64"))?;

    say!("dependencies");
    // Advisories are left out: their database can only be had from GitHub, and
    // this has to give the same answer without it.
    process::run(
        Command::new(deny()?)
            .args(["check", "licenses", "bans", "sources"])
            .current_dir(workspace::root()),
    )?;
    say!("nothing found");
    Ok(())
}

/// clippy of the toolchain that builds for BPF, on the BPF programs: as they are
/// for this machine, or for user code of another architecture.
fn clippy_for_bpf(tools: &Tools, architecture: Option<&str>) -> Result<()> {
    if tools.toolchain.sysroot == Path::new("/usr") {
        toolchain::apt::ensure(&["rust-web-clippy"], &[], "install clippy for the BPF compiler")?;
    }
    let mut clippy = tools.cargo("clippy");
    let mut target = workspace::programs(false).join("bpf-clippy");
    if let Some(architecture) = architecture {
        // aya's crates take it from here, too.
        let choice = format!("{RUSTFLAGS} --cfg bpf_target_arch=\"{architecture}\"");
        clippy.env("RUSTFLAGS", choice);
        target.push(architecture);
    }
    clippy.arg("--quiet").arg("--target-dir").arg(target).args(["--", "-D", "warnings"]);
    process::run(clippy.current_dir(workspace::root()))
}

/// rustfmt and clippy, which a minimal installation of Rust lacks.
fn components() -> Result<()> {
    let has = |tool: &str| process::succeeds(workspace::cargo().args([tool, "--version"]));
    if has("fmt") && has("clippy") {
        return Ok(());
    }
    let names = ["component", "add", "rustfmt", "clippy"];
    toolchain::rustup::run(&names).context("cargo has no rustfmt or no clippy")
}

/// The program cargo-deny; built once if it is not there.
fn deny() -> Result<std::path::PathBuf> {
    let tools = toolchain::locate::tools_directory()
        .context("neither XDG_DATA_HOME nor HOME says where tools can be put")?;
    let program = tools.join("bin/cargo-deny");
    if program.is_file() {
        return Ok(program);
    }
    if process::in_path("cargo-deny") {
        return Ok("cargo-deny".into());
    }
    say!("building cargo-deny {DENY_VERSION} into {}: some minutes, once", tools.display());
    // It has little to do here: not optimized, it is built in half the time.
    toolchain::install("cargo-deny", DENY_VERSION, &["--debug", "--no-default-features"], &[])?;
    Ok(program)
}

fn file_sizes() -> Result<()> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let files = process::output(git.current_dir(workspace::root()))?;
    let mut too_long = Vec::new();
    for file in files.split_terminator('\0').filter(|file| is_written(file)) {
        // A file that git knows of and that is not there was removed.
        let Ok(content) = fs::read(workspace::root().join(file)) else { continue };
        let lines = content.split(|&byte| byte == b'\n').count() - 1;
        if lines > LONGEST {
            too_long.push(format!("{file} ({lines})"));
        }
    }
    if !too_long.is_empty() {
        bail!("more than {LONGEST} lines: {}", too_long.join(", "));
    }
    Ok(())
}

fn is_written(file: &str) -> bool {
    Path::new(file).extension().is_some_and(|extension| WRITTEN.iter().any(|one| extension == *one))
}
