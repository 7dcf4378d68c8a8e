//! What the BPF programs say of themselves.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use leakd::bpf::sys::{self, MapSpec, map_type, possible_cpus};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::support::invocation::{Leakctl, Outcome};

/// Runs a shell that makes a process and then replaces its own program.
fn run(log: Option<&str>) -> Outcome {
    let mut command = Leakctl::command();
    command.args(["run", "--follow-forks", "--", "sh", "-c", "ls / >/dev/null; exec sleep 1"]);
    match log {
        Some(log) => command.env("LEAKD_LOG", log),
        None => command.env_remove("LEAKD_LOG"),
    };
    Leakctl::start_command(command).outcome()
}

/// Check that they say what they do where that is asked for, and nothing where
/// it is not.
#[test]
fn programs_speak_when_asked() {
    let asked = run(Some("leakd::bpf=debug"));
    assert_eq!(asked.status, 0, "{asked:?}");
    assert!(asked.stderr.contains("DEBUG bpf: target "), "{asked:?}");
    assert!(asked.stderr.contains("replaced its program: epoch 1"), "{asked:?}");
    assert!(asked.stderr.contains(" made "), "{asked:?}");
    let not_asked = run(None);
    assert_eq!(not_asked.status, 0, "{not_asked:?}");
    assert!(!not_asked.stderr.contains("bpf: "), "{not_asked:?}");
}

/// Check that each exec is seen, also on a CPU whose other threads work at BPF
/// maps and are preempted in that, as any reader of a map is where the kernel
/// can be preempted: no program of a tracing event would run there.
#[test]
fn execs_are_seen_beside_busy_maps() {
    const EXECS: usize = 20;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _at_the_end = Set(&done);
        for cpu in 0..possible_cpus().expect("sysfs") {
            let done = &done;
            scope.spawn(move || keep_at_a_map(cpu, done));
        }
        let script = "[ $1 = 0 ] || exec sh -c \"$0\" \"$0\" $(($1 - 1))";
        let mut command = Leakctl::command();
        command.args(["run", "--", "sh", "-c", script, script, &EXECS.to_string()]);
        command.env("LEAKD_LOG", "leakd::bpf=debug");
        let outcome = Leakctl::start_command(command).outcome();
        assert_eq!(outcome.status, 0, "{outcome:?}");
        let last = format!("replaced its program: epoch {EXECS}");
        assert!(outcome.stderr.contains(&last), "{outcome:?}");
    });
}

/// Sets a flag at its end, however that comes.
struct Set<'a>(&'a AtomicBool);

impl Drop for Set<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Works at a map on one CPU, whenever nobody else wants that, so that whoever
/// does finds it in the middle of an update.
fn keep_at_a_map(cpu: usize, done: &AtomicBool) {
    const VALUE: u32 = 16 << 20;
    let mut one = CpuSet::new();
    one.set(cpu).expect("a CPU's number");
    if sched_setaffinity(Pid::from_raw(0), &one).is_err() {
        return; // Not plugged in.
    }
    // SAFETY: the parameters outlive the call, and zero is the only priority there.
    let idle = unsafe {
        let parameters = libc::sched_param { sched_priority: 0 };
        libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters)
    };
    assert_eq!(idle, 0, "SCHED_IDLE");
    let map = sys::map_create(&MapSpec {
        map_type: map_type::ARRAY,
        key_size: 4,
        value_size: VALUE,
        max_entries: 1,
        flags: 0,
        name: "busy",
    })
    .expect("a map");
    let value = vec![0; VALUE as usize];
    while !done.load(Ordering::Relaxed) {
        sys::map_update(map.as_fd(), &[0; 4], &value, 0).expect("an update");
    }
}
