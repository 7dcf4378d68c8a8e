//! Compiles the programs under `tests/programs`, each once in a test run.

use crate::host;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, OnceLock},
};

/// Name, compiler with its flags, and source. The sources are compiled with
/// what a distribution uses: -O2, no frame pointers.
const RECIPES: &[(&str, &str, &str)] = &[
    ("orders", "cc -O2 -g", "orders.c"),
    ("orders_no_debug", "cc -O2", "orders.c"),
    ("orders_cpp", "c++ -O2", "orders.cpp"),
    ("orders_rs", "rustc -O -g --edition 2024", "orders.rs"),
    ("orders_static", "cc -O2 -static", "orders.c"),
    ("orders_static_pie", "cc -O2 -static-pie", "orders.c"),
    ("orders_stripped", "cc -O2 -static -s", "orders.c"),
    ("orders_musl", "musl-gcc -O2", "orders.c"),
    ("orders_musl_static", "musl-gcc -O2 -static", "orders.c"),
    ("orders_32", "cc -m32 -O2", "orders.c"),
    ("threads", "cc -O2 -pthread", "threads.c"),
    ("pool", "cc -O2", "pool.c"),
    ("exactness", "cc -O2 -pthread", "exactness.c"),
    ("outcomes", "cc -O2", "outcomes.c"),
    ("fork", "cc -O2", "fork.c"),
    ("exec", "cc -O2", "exec.c"),
    ("short", "cc -O2", "short.c"),
    ("flash", "cc -O2", "flash.c"),
    ("plugin_host", "cc -O2", "plugin_host.c"),
    ("plugin_allocator.so", "cc -O2 -shared -fPIC", "plugin_allocator.c"),
    ("plugin_plain.so", "cc -O2 -shared -fPIC", "plugin_plain.c"),
    // Without a single entry of unwind information, those of the linker included.
    (
        "plugin_bare.so",
        "cc -O2 -shared -fPIC -fno-asynchronous-unwind-tables -nostartfiles \
         -Wl,--no-ld-generated-unwind-info",
        "plugin_plain.c",
    ),
    ("frees", "cc -O2 -fno-builtin -fno-ipa-icf -fno-optimize-sibling-calls", "frees.c"),
    (
        "frees_static",
        "cc -O2 -static -fno-builtin -fno-ipa-icf -fno-optimize-sibling-calls",
        "frees.c",
    ),
    ("threads_static", "cc -O2 -pthread -static", "threads.c"),
    ("reload", "cc -O2", "reload.c"),
    // The middle frame of one is as large as the next one's two: and 16 bytes,
    // for what the second saves.
    (
        "reloaded_first.so",
        "cc -O2 -shared -fPIC -DNAME=first -DSIZE=1100 -DMIDDLE=2064 -DOUTER=1024",
        "reloaded.c",
    ),
    (
        "reloaded_second.so",
        "cc -O2 -shared -fPIC -DNAME=second -DSIZE=1300 -DMIDDLE=1024 -DOUTER=1024",
        "reloaded.c",
    ),
    (
        "reloaded_third.so",
        "cc -O2 -shared -fPIC -DNAME=third -DSIZE=1700 -DMIDDLE=3104 -DOUTER=1024",
        "reloaded.c",
    ),
    ("jit", "cc -O2", "jit.c"),
    ("longjmp", "cc -O2", "longjmp.c"),
    ("slow_leak", "cc -O2 -g", "slow_leak.c"),
    ("unmap", "cc -O2", "unmap.c"),
    ("mapped", "cc -O2", "mapped.c"),
    ("crowd", "cc -O2", "crowd.c"),
    ("bare", "cc -O2 -nostdlib -static -ffreestanding", "bare.c"),
    ("zombie", "cc -O2", "zombie.c"),
    ("witness.so", "cc -O2 -shared -fPIC", "witness.c"),
    ("swallow.so", "cc -O2 -shared -fPIC", "swallow.c"),
    ("jump.so", "cc -O2 -shared -fPIC", "jump.c"),
    ("patterns", "cc -O1 -g -pthread", "patterns.c"),
    ("behaviours", "cc -O2 -g -pthread", "behaviours/behaviours.c"),
    ("graphs", "cc -O2 -g -pthread -fno-ipa-icf -fno-optimize-sibling-calls", "graphs.c"),
    (
        "graphs_with_sanitizer",
        "cc -O2 -g -pthread -fsanitize=leak -fno-ipa-icf -fno-optimize-sibling-calls",
        "graphs.c",
    ),
    ("mover", "cc -O2 -g -pthread", "mover.c"),
    ("averse", "cc -O2 -g -pthread -fno-optimize-sibling-calls", "averse.c"),
    ("large", "cc -O2 -g -pthread -fno-optimize-sibling-calls", "large.c"),
    ("states", "cc -O2 -g -pthread -fno-optimize-sibling-calls", "states.c"),
];

/// Where the sources are.
pub fn source_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs")
}

fn compile(name: &str) -> PathBuf {
    let (_, compiler, source) = RECIPES
        .iter()
        .find(|(known, ..)| *known == name)
        .unwrap_or_else(|| panic!("there is no recipe for the test program {name}"));
    // A folder for each test run, so that two runs at once do not meet.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("programs").join(name);
    std::fs::create_dir_all(&folder).expect("cannot make the folder for test programs");
    let program = folder.join(name);
    if host::programs_are_compiled() && program.exists() {
        return program;
    }
    let fresh = folder.join(format!("{name}.{}", std::process::id()));
    let words: Vec<_> = compiler.split(' ').collect();
    let output = Command::new(words[0])
        .args(&words[1..])
        .arg("-o")
        .arg(&fresh)
        .arg(source_folder().join(source))
        .output()
        .unwrap_or_else(|error| panic!("cannot start {} to compile {source}: {error}", words[0]));
    assert!(
        output.status.success(),
        "{compiler} {source}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    std::fs::rename(&fresh, &program).expect("cannot put the test program in its place");
    program
}

/// The path of the compiled program.
pub fn program(name: &str) -> PathBuf {
    type Once = Arc<OnceLock<PathBuf>>;
    static COMPILED: OnceLock<Mutex<HashMap<String, Once>>> = OnceLock::new();
    let once = {
        let mut known = COMPILED.get_or_init(Mutex::default).lock().expect("a compilation failed");
        known.entry(name.to_owned()).or_default().clone()
    };
    once.get_or_init(|| compile(name)).clone()
}

/// A copy of the compiled program that no other test runs, for a daemon that
/// traces whatever runs it.
pub fn private_copy(name: &str, folder: &tempfile::TempDir) -> PathBuf {
    let copy = folder.path().join(name);
    std::fs::copy(program(name), &copy).expect("our own folder");
    copy
}

/// A library of the distribution, by its file name.
pub fn system_library(name: &str, package: &str) -> PathBuf {
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{name} is not installed: apt-get install {package}"))
}

/// A program of the distribution, by its name.
pub fn system_program(name: &str, package: &str) -> PathBuf {
    ["/usr/bin", "/usr/sbin", "/bin", "/sbin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{name} is not installed: apt-get install {package}"))
}

/// Check that all programs compile; what runs the tests elsewhere does this
/// first.
#[test]
fn compiles_programs() {
    for (name, ..) in RECIPES {
        assert!(program(name).is_file(), "{name} was not compiled");
    }
}
