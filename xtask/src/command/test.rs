//! `cargo xtask test`

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::{self, say};
use crate::{toolchain, workspace};

/// Debian packages that hold the programs under test (servers, interpreters,
/// allocators, C libraries and compilers), gdb and valgrind, which stacks and
/// classes are compared with, and tmux, in which leakctl's screens are looked at.
const PACKAGES: [&str; 22] = [
    "binutils",
    "g++",
    "gcc",
    "gcc-multilib",
    "gdb",
    "libc6-arm64-cross",
    "libjemalloc2",
    "libmimalloc2.0",
    "libstdc++6-arm64-cross",
    "libtcmalloc-minimal4",
    "musl-tools",
    "nginx-light",
    "nodejs",
    "perl",
    "postgresql",
    "python3",
    "redis-server",
    "redis-tools",
    "sqlite3",
    "tmux",
    "valgrind",
    "wrk",
];

/// Services that those packages bring. They are neither started nor, if the
/// packages were not there before, left enabled for the next boot.
const SERVICES: [toolchain::apt::Service; 3] = [
    toolchain::apt::Service { package: "nginx-light", unit: "nginx.service" },
    toolchain::apt::Service { package: "postgresql", unit: "postgresql.service" },
    toolchain::apt::Service { package: "redis-server", unit: "redis-server.service" },
];

/// A test program.
#[derive(Debug)]
pub struct TestProgram {
    /// The executable.
    pub path: PathBuf,
    /// The package's directory, in which tests run.
    pub directory: PathBuf,
    /// Package, kind and name: `leakd/test/ledger`.
    pub name: String,
    /// It uses the kernel: it loads BPF programs and probes real processes. So do
    /// the unit tests of leakd's library.
    needs_root: bool,
}

/// Runs the tests that need no kernel as the calling user and the others as
/// root.
pub fn run(arguments: &[String]) -> Result<()> {
    toolchain::ensure()?;
    install_programs()?;
    let programs = having_tests(programs(&[])?, arguments)?;
    let (as_root, plain): (Vec<_>, Vec<_>) =
        programs.into_iter().partition(|program| program.needs_root);

    let mut failed = Vec::new();
    for program in &plain {
        say!("test {}", program.name);
        let mut command = Command::new(&program.path);
        command.env("CARGO_MANIFEST_DIR", &program.directory);
        execute(command, program, arguments, &mut failed)?;
    }
    let path = path_with_rustc()?;
    for program in &as_root {
        say!("test {} (as root)", program.name);
        let variables =
            [("CARGO_MANIFEST_DIR", program.directory.as_os_str()), ("PATH", path.as_os_str())];
        let reason = "attach probes to the processes of the tests";
        let command = process::as_root(&program.path, &variables, reason)?;
        execute(command, program, arguments, &mut failed)?;
    }
    give_back()?;
    if arguments.is_empty() {
        say!("test documentation");
        let mut documentation = workspace::cargo();
        documentation.args(["test", "--locked", "--doc", "--package", "leakd"]);
        if !process::status(&mut documentation)?.success() {
            failed.push("documentation");
        }
    }
    if !failed.is_empty() {
        bail!("tests failed: {}", failed.join(", "));
    }
    say!("all tests passed, in {} programs", plain.len() + as_root.len());
    Ok(())
}

/// Installs the programs that tests and benchmark trace.
pub fn install_programs() -> Result<()> {
    toolchain::apt::ensure(&PACKAGES, &SERVICES, "install the programs that the tests trace")
}

fn execute<'a>(
    mut command: Command,
    program: &'a TestProgram,
    arguments: &[String],
    failed: &mut Vec<&'a str>,
) -> Result<()> {
    command.args(arguments).current_dir(&program.directory);
    if !process::status(&mut command)?.success() {
        failed.push(&program.name);
    }
    Ok(())
}

/// PATH for the end-to-end tests, which compile programs: with the rustc of this
/// build in front, because rustup's stand-in for it does not work for root.
pub fn path_with_rustc() -> Result<OsString> {
    let sysroot = toolchain::locate::active_sysroot().map(|sysroot| sysroot.join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    env::join_paths(sysroot.into_iter().chain(env::split_paths(&path)))
        .context("PATH cannot be extended")
}

/// Gives the user what the tests, as root, have left in the target directory:
/// `cargo clean` could not remove it.
pub fn give_back() -> Result<()> {
    let left = workspace::target().join("tmp");
    if process::is_root() || !left.is_dir() {
        return Ok(());
    }
    let user = nix::unistd::getuid().to_string();
    let reason = "give you the files of the tests";
    process::run(process::as_root("chown", &[], reason)?.args(["-R", &user]).arg(left))
}

/// Builds the test programs of the default members, or those that the options
/// choose, and asks cargo where they are: root, who runs some of them, may have
/// no cargo.
pub fn programs(options: &[&str]) -> Result<Vec<TestProgram>> {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--locked", "--no-run", "--message-format=json-render-diagnostics"]);
    cargo.args(options);
    let messages = process::output(cargo.stdout(Stdio::piped()))?;
    let mut programs = Vec::new();
    for line in messages.lines() {
        let message: Value = serde_json::from_str(line).context("cargo printed no valid JSON")?;
        programs.extend(test_program(&message));
    }
    if programs.is_empty() {
        bail!("cargo built no test program");
    }
    programs.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(programs)
}

/// Those programs that have a test which the arguments choose: all of them
/// where there are no arguments.
fn having_tests(programs: Vec<TestProgram>, arguments: &[String]) -> Result<Vec<TestProgram>> {
    if arguments.is_empty() {
        return Ok(programs);
    }
    let mut chosen = Vec::new();
    for program in programs {
        let mut list = Command::new(&program.path);
        list.args(arguments).args(["--list", "--format", "terse"]).current_dir(&program.directory);
        if process::output(&mut list)?.lines().any(|line| line.ends_with(": test")) {
            chosen.push(program);
        }
    }
    if chosen.is_empty() {
        bail!("no test matches {}", arguments.join(" "));
    }
    Ok(chosen)
}

/// The test program that one of cargo's messages tells of. The messages are
/// described at <https://doc.rust-lang.org/cargo/reference/external-tools.html>.
fn test_program(message: &Value) -> Option<TestProgram> {
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let manifest = Path::new(message["manifest_path"].as_str()?);
    let directory = manifest.parent()?.to_owned();
    let package = directory.file_name().unwrap_or(OsStr::new("?")).to_string_lossy().into_owned();
    let kind = message["target"]["kind"][0].as_str()?;
    let target = message["target"]["name"].as_str()?;
    Some(TestProgram {
        path: message["executable"].as_str()?.into(),
        directory,
        name: format!("{package}/{kind}/{target}"),
        needs_root: kind == "test" || (kind == "lib" && package == "leakd"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that test programs are told from other artifacts, and those that use
    /// the kernel from those that do not.
    #[test]
    fn reads_cargo_messages() {
        let message = |kind: &str, test: bool| {
            serde_json::json!({
                "reason": "compiler-artifact",
                "manifest_path": "/tree/leakd/Cargo.toml",
                "target": {"kind": [kind], "name": "attach"},
                "profile": {"test": test},
                "executable": "/tree/target/debug/deps/attach-0123",
            })
        };
        let program = test_program(&message("test", true)).expect("an end-to-end test");
        assert!(program.needs_root);
        assert_eq!(program.name, "leakd/test/attach");
        assert_eq!(program.directory, Path::new("/tree/leakd"));
        assert!(test_program(&message("lib", true)).expect("leakd's unit tests").needs_root);
        assert!(!test_program(&message("bin", true)).expect("a unit test").needs_root);
        assert!(test_program(&message("bin", false)).is_none());
        assert!(test_program(&serde_json::json!({"reason": "build-finished"})).is_none());
    }
}
