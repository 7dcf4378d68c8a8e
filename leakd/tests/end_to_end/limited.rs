//! When the memory that a control group leaves a process will be used up.

use crate::support::{
    invocation::Leakctl, leakd::Leakd, process::Process, programs::program, wait_for,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{fs, path::PathBuf, process::Command};

/// What the group may have, in bytes.
const LIMIT: u64 = 64 << 20;
/// What the leaking program takes a second: blocks of 1024 bytes with malloc's
/// header, one each hundredth of a second.
const RATE: f64 = 1040.0 * 100.0;

/// A control group with a limit on its memory.
struct Group {
    folder: PathBuf,
    /// Where the hierarchy was mounted for it, if it was not.
    mounted: Option<tempfile::TempDir>,
}

impl Group {
    fn new(limit: u64) -> Self {
        let (root, is_second, mounted) = hierarchy();
        let folder = root.join(format!("leakd-test-{}", std::process::id()));
        if is_second {
            fs::write(root.join("cgroup.subtree_control"), "+memory")
                .expect("a kernel with the memory controller");
        }
        fs::create_dir(&folder).expect("a new control group");
        let file = if is_second { "memory.max" } else { "memory.limit_in_bytes" };
        fs::write(folder.join(file), limit.to_string()).expect("a group of ours");
        Self { folder, mounted }
    }

    fn take(&self, pid: i32) {
        fs::write(self.folder.join("cgroup.procs"), pid.to_string()).expect("a group of ours");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It is busy until its processes are gone.
        wait_for("the control group to be empty", || fs::remove_dir(&self.folder).ok());
        if let Some(folder) = &self.mounted {
            let _ = Command::new("umount").arg("--lazy").arg(folder.path()).status();
        }
    }
}

/// Where the memory controller is, whether that is of version 2, and the folder that
/// it was mounted at for this test, if it was nowhere.
fn hierarchy() -> (PathBuf, bool, Option<tempfile::TempDir>) {
    let mounts = fs::read_to_string("/proc/mounts").expect("/proc");
    let mut second = None;
    for line in mounts.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[2] {
            "cgroup" if words[3].split(',').any(|one| one == "memory") => {
                return (words[1].into(), false, None);
            }
            "cgroup2" => second = Some(PathBuf::from(words[1])),
            _ => {}
        }
    }
    if let Some(root) = second {
        return (root, true, None);
    }
    let folder = tempfile::tempdir().expect("a directory");
    let mount = Command::new("mount").args(["-t", "cgroup2", "none"]).arg(folder.path()).status();
    assert!(mount.expect("mount").success(), "a kernel with control groups");
    (folder.path().to_owned(), true, Some(folder))
}

fn check(out: &Value, group: &Group) {
    let number = |name: &str| out[name].as_u64().unwrap_or_else(|| panic!("{name}: {out}"));
    let name = group.folder.file_name().and_then(|name| name.to_str()).expect("plain text");
    assert!(out["group"].as_str().expect("its name").ends_with(name), "{out}");
    assert_eq!(number("limit_bytes"), LIMIT);
    let (left, likely) = (number("left_bytes"), number("likely_ms"));
    // The machine's swap, if it has any, is left, too.
    assert!(left > LIMIT / 2, "{out}");
    assert!(number("soonest_ms") <= likely, "{out}");
    assert!(out["latest_ms"].is_null() || likely <= number("latest_ms"), "{out}");
    let true_ms = left as f64 / RATE * 1000.0;
    assert!((true_ms / 2.0..true_ms * 2.0).contains(&(likely as f64)), "{true_ms}: {out}");
}

/// Check that of two processes that leak alike, only for the one with a limit it is
/// told when that will be used up, by leakctl and by the daemon.
#[test]
fn out_of_memory_is_foreseen() {
    let group = Group::new(LIMIT);
    let start = || {
        let mut command = Command::new(program("patterns"));
        command.arg("leak_steadily");
        Process::start_ready(command)
    };
    let (limited, free) = (start(), start());
    group.take(limited.pid());
    let daemon = Leakd::start("mode = 'off'\n[watch]\nstartup = '0s'\ninterval = '1s'");
    let words = ["attach", "--no-daemon", "--json", "--for", "40s"].map(str::to_owned);
    let pids = [&limited, &free].map(|process| process.pid().to_string());
    let report = Leakctl::start(words.into_iter().chain(pids)).finish();
    let told = |process: &Process| report.target(process.pid()).0["out_of_memory"].clone();
    check(&told(&limited), &group);
    // It grows as well, and is in no group of the test's.
    let name = group.folder.file_name().and_then(|name| name.to_str()).expect("plain text");
    assert!(!told(&free).to_string().contains(name), "{}", told(&free));

    let out = wait_for("the daemon to foresee it", || {
        let view = daemon.process(limited.pid())?;
        Some(view["out_of_memory"].clone()).filter(|out| !out.is_null())
    });
    check(&out, &group);
    for process in [&limited, &free] {
        process.signal(Signal::SIGKILL);
    }
    daemon.end(Signal::SIGTERM);
    drop((limited, free));
    drop(group);
}
