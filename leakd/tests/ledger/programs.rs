//! Compiles the C programs that the tests run, and finds the libraries that
//! they are run with.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use super::host;

/// What the tests compile: sources under `tests/ledger/programs`, with flags.
const RECIPES: [(&str, &[&str]); 7] = [
    ("driver.c", &[]),
    ("interposer.c", &["-shared", "-fPIC", "-DHEADER=0"]),
    ("interposer.c", &["-shared", "-fPIC", "-DHEADER=0", "-fno-optimize-sibling-calls"]),
    ("interposer.c", &["-shared", "-fPIC", "-DHEADER=16"]),
    ("interposer.c", &["-shared", "-fPIC", "-DHEADER=0", "-DSWALLOW"]),
    ("leave.c", &["-DOWN"]),
    ("throw.cpp", &["-lstdc++"]),
];

/// Compiles `tests/ledger/programs/SOURCE`, once in a test run. Optimized, as
/// programs are, but calls of malloc and the like stay what they are.
pub fn compile(source: &str, flags: &[&str]) -> PathBuf {
    static COMPILED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ledger");
    std::fs::create_dir_all(&folder).expect("cannot make the folder for test programs");
    let mut words = vec![source];
    words.extend(flags.iter().map(|flag| flag.rsplit('/').next().unwrap_or_default()));
    let finished = folder.join(words.join("_"));
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if compiled.contains(&finished) || host::programs_are_compiled() && finished.exists() {
        return finished;
    }
    let program = folder.join(format!("{source}.{}", std::process::id()));
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
    std::fs::rename(&program, &finished).expect("cannot put the test program in its place");
    compiled.push(finished.clone());
    finished
}

/// Check that all programs compile; what runs the tests elsewhere does this
/// first.
#[test]
fn compiles_programs() {
    for (source, flags) in RECIPES {
        assert!(compile(source, flags).is_file(), "{source} was not compiled");
    }
    let interposed = super::interposed::plain_with_calls();
    compile("leave.c", &[interposed.to_str().expect("a path in UTF-8")]);
}

/// A library of the distribution, by its file name.
pub fn library(name: &str, package: &str) -> PathBuf {
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{name} is not installed: apt-get install {package}"))
}
