//! Tests of the watch, with real processes.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use super::*;

fn watch(most: usize, descriptors: usize) -> Watch {
    Watch::new(Judge::of_process(1000.0, Duration::ZERO), most, descriptors)
}

/// A process that ends when told.
struct Process(Child);

impl Process {
    fn start() -> Self {
        let mut command = Command::new("cat");
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        Self(command.spawn().expect("cat runs"))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().expect("our own child");
    }
}

/// Check that processes come and go in it, with and without files kept open,
/// and that kernel threads do not.
#[test]
fn processes_come_and_go() {
    for descriptors in [0, 100_000] {
        let mut watch = watch(100_000, descriptors);
        let process = Process::start();
        watch.look().expect("/proc");
        let own = watch.process(std::process::id()).expect("this process");
        assert!(own.bytes() > 0);
        assert!(watch.process(2).is_none_or(|second| !second.identity.exe.is_empty()));
        let seen = watch.process(process.pid()).expect("the child");
        assert_eq!(seen.status.is_some(), descriptors > 0);
        assert_eq!(seen.identity.start_time, read::start_time(process.pid()).expect("it runs"));
        let first = watch.last();
        assert!(first.processes > 1 && first.left_out == 0);
        let pid = process.pid();
        watch.look().expect("/proc");
        assert!(watch.process(pid).is_some());
        process.end();
        watch.look().expect("/proc");
        assert!(watch.process(pid).is_none());
        assert_eq!(watch.last().number, 3);
    }
}

/// Check that a pid that is given out again is not taken for the process that
/// had it.
#[test]
fn pids_are_given_out_again() {
    for descriptors in [0, 100_000] {
        let mut watch = watch(100_000, descriptors);
        let first = Process::start();
        let pid = first.pid();
        watch.look().expect("/proc");
        let start = watch.process(pid).expect("it runs").identity.start_time;
        first.end();
        // Clock ticks are 10 ms: another start time.
        std::thread::sleep(Duration::from_millis(30));
        let mut second = None;
        for _ in 0..1000 {
            std::fs::write("/proc/sys/kernel/ns_last_pid", format!("{}", pid - 1))
                .expect("root may choose the next pid");
            let process = Process::start();
            if process.pid() == pid {
                second = Some(process);
                break;
            }
            process.end();
        }
        let second = second.expect("nobody else takes the pid a thousand times");
        watch.look().expect("/proc");
        let seen = watch.process(pid).expect("the second");
        assert!(seen.identity.start_time > start);
        assert_eq!(seen.history.series().len(), 1, "nothing of the first");
        second.end();
    }
}

/// Check that over a day (of a clock that goes faster) in which processes come
/// and go, some with pids that were given out before, nobody is mistaken for
/// another, no file of one that has gone is kept open, and what is remembered is
/// bounded.
#[test]
fn a_day() {
    const STEP: Duration = Duration::from_secs(20);
    let mut watch = watch(100_000, 100_000);
    let boot = read::since_boot();
    let mut living: Vec<(Process, u32)> = Vec::new();
    let mut gone: Vec<u32> = Vec::new();
    let (mut reused, mut remembered) = (0, Vec::new());
    for number in 0..24 * 3600 / STEP.as_secs() as u32 {
        if number % 20 == 0 {
            if living.len() >= 10 {
                for (process, _) in living.drain(..5) {
                    gone.push(process.pid());
                    process.end();
                }
            }
            for index in 0..5 {
                // Every other one gets a pid that somebody had before, unless
                // others are faster.
                if let Some(old) = gone.get(gone.len().wrapping_sub(index * 2)) {
                    let last = format!("{}", old - 1);
                    std::fs::write("/proc/sys/kernel/ns_last_pid", last).expect("root may");
                }
                let process = Process::start();
                reused += u32::from(gone.contains(&process.pid()));
                living.push((process, number));
            }
        }
        let passed = STEP * number;
        watch.look_when(passed.as_secs_f64(), boot + passed).expect("/proc");
        for (process, since) in &living {
            let seen = watch.process(process.pid()).expect("it runs");
            let start = read::start_time(process.pid()).expect("it runs");
            assert_eq!(seen.identity.start_time, start);
            let series = seen.history.series();
            let first = series.first().expect("a look").time;
            assert!(first >= (STEP * *since).as_secs_f64(), "another's history");
        }
        if number % 20 == 10 {
            let is_ours = |pid: &u32| living.iter().any(|(process, _)| process.pid() == *pid);
            let left = gone
                .iter()
                .filter(|pid| !is_ours(pid))
                .find(|pid| watch.process(**pid).is_some_and(|one| one.identity.comm == "cat"));
            assert_eq!(left, None, "it has gone");
            let own = watch.process(std::process::id()).expect("this process");
            remembered.push(own.history.series().len());
        }
    }
    let open = watch.processes().filter(|one| one.status.is_some()).count();
    assert_eq!(open, watch.last().processes);
    // Five minutes, two hours and two days, each at its own resolution.
    assert!(remembered.iter().all(|points| *points <= 66 + 120 + 96), "{remembered:?}");
    assert!(reused > 20, "{reused} pids were given out again");
    for (process, _) in living {
        process.end();
    }
}

/// Check that what there is no room for is counted.
#[test]
fn room_is_bounded() {
    let mut watch = watch(2, 1);
    let pass = watch.look().expect("/proc");
    assert_eq!(pass.processes, 2);
    assert!(pass.left_out > 0);
    assert_eq!(watch.processes().filter(|one| one.status.is_some()).count(), 1);
}

/// Check that a process that gives itself another name and another program is
/// found out, and that its history begins anew with the program.
#[test]
fn names_change() {
    let mut shell = Command::new("sh")
        .args(["-c", "read x; printf '\\033[2J' > /proc/$$/comm; read x; exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("sh runs");
    let mut stdin = shell.stdin.take().expect("a pipe");
    let pid = shell.id();
    let mut watch = watch(100_000, 100_000);
    let mut look_until = |what: &dyn Fn(&Watched) -> bool| {
        loop {
            watch.look().expect("/proc");
            if what(watch.process(pid).expect("it runs")) {
                return;
            }
        }
    };
    look_until(&|shell| shell.identity.comm == "sh" && shell.history.series().len() > 3);
    stdin.write_all(b"\n").expect("it reads");
    look_until(&|shell| shell.identity.comm == "\u{1b}[2J");
    stdin.write_all(b"\n").expect("it reads");
    look_until(&|cat| cat.identity.comm == "cat" && cat.identity.exe.ends_with("cat"));
    drop(stdin);
    shell.wait().expect("our own child");
}
