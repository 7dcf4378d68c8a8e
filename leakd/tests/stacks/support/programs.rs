//! Compiles the programs that the tests run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A file of these tests.
pub fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stacks").join(name)
}

/// Compiles `programs/SOURCE` as distributions do: optimized, without frame
/// pointers.
pub fn compile(name: &str, flags: &[&str]) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("stacks");
    std::fs::create_dir_all(&folder).expect("cannot make the folder for test programs");
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let program = folder.join(format!("{name}.{}.{number}", std::process::id()));
    let compiler = if name.ends_with(".cpp") { "c++" } else { "cc" };
    let output = Command::new(compiler)
        .args(["-O2", "-Wall", "-Wextra", "-fomit-frame-pointer", "-pthread"])
        .args(flags)
        .arg("-o")
        .arg(&program)
        .arg(source("programs").join(name))
        .output()
        .unwrap_or_else(|error| panic!("cannot start {compiler} to compile {name}: {error}"));
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{compiler} {name}: {}\n{messages}", output.status);
    program
}
