//! The module that leaks, loaded by a test.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Says where the module is; set by `cargo xtask vm`.
const VARIABLE: &str = "LEAKD_TEST_MODULE";
const RUN: &str = "/sys/module/leaky/parameters/run";

/// Its file.
pub fn path() -> PathBuf {
    let path = std::env::var_os(VARIABLE);
    path.unwrap_or_else(|| panic!("{VARIABLE} is not set: run this by `cargo xtask vm`")).into()
}

/// What the module can leak, each with the allocator that leakd is to name.
pub const KINDS: [(&str, &str); 6] = [
    ("kmalloc", "kmalloc"),
    ("large", "kmalloc"),
    ("cache", "cache"),
    ("vmalloc", "vmalloc"),
    ("pages", "pages"),
    ("percpu", "percpu"),
];
/// Blocks that a function of the module takes for a command.
pub const TAKEN: u64 = 10_000;
/// Of these, those that one that leaks forgets.
pub const FORGOTTEN: u64 = 100;

/// There is one kernel, and so one module at a time.
static KERNEL: Mutex<()> = Mutex::new(());

/// The module, until this is dropped.
#[derive(Debug)]
pub struct Module(#[allow(dead_code, reason = "held")] MutexGuard<'static, ()>);

impl Module {
    /// Loads it.
    pub fn load() -> Self {
        let lock = KERNEL.lock().unwrap_or_else(PoisonError::into_inner);
        let file = File::open(path()).expect("the module has been built");
        // SAFETY: finit_module(2) reads an open file and a C string.
        let result =
            unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
        assert_eq!(result, 0, "the module does not load: {}", std::io::Error::last_os_error());
        Self(lock)
    }

    /// Has it do something (see module/leaky.c).
    pub fn run(&self, command: &str) {
        fs::write(RUN, command).unwrap_or_else(|error| panic!("{command:?}: {error}"));
    }

    /// What it has forgotten, by kind.
    pub fn forgotten(&self) -> BTreeMap<String, u64> {
        let text = fs::read_to_string(RUN).expect("the module is loaded");
        let words = text.lines().filter_map(|line| line.split_once(' '));
        words.map(|(kind, count)| (kind.to_owned(), count.parse().expect("a count"))).collect()
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let name = CString::new("leaky").expect("no NUL");
        // SAFETY: delete_module(2) reads a C string.
        let result = unsafe { libc::syscall(libc::SYS_delete_module, name.as_ptr(), 0) };
        let error = std::io::Error::last_os_error();
        if !std::thread::panicking() {
            assert_eq!(result, 0, "the module does not unload: {error}");
        }
    }
}
