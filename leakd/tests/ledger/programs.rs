//! Compiles the C programs that the tests run, and finds the libraries that
//! they are run with.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Compiles `tests/ledger/programs/SOURCE`. Optimized, as programs are, but
/// calls of malloc and the like stay what they are.
pub fn compile(source: &str, flags: &[&str]) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ledger");
    std::fs::create_dir_all(&folder).expect("cannot make the folder for test programs");
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let program = folder.join(format!("{source}.{}.{number}", std::process::id()));
    let output = Command::new("cc")
        .args(["-O2", "-Wall", "-Wextra", "-fno-builtin", "-pthread"])
        .arg("-o")
        .arg(&program)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ledger/programs").join(source))
        .args(flags) // behind the source: libraries may be among them
        .output()
        .unwrap_or_else(|error| panic!("cannot start cc to compile {source}: {error}"));
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cc {source}: {}\n{messages}", output.status);
    program
}

/// A library of the distribution, by its file name.
pub fn library(name: &str, package: &str) -> PathBuf {
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{name} is not installed: apt-get install {package}"))
}
