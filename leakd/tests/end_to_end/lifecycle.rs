//! What happens to processes while they are traced.

use crate::host::{scaled, stretched};
use crate::support::{
    PATIENCE,
    invocation::{Leakctl, leakctl},
    planted::{assert_finds, enough, watch},
    probes::{
        assert_nothing_left, changed_code, changed_code_of, probes_present, wait_until_nothing_left,
    },
    process::Process,
    programs::program,
    report::assert_first_site,
    wait_for,
};
use nix::sys::signal::Signal;
use std::{
    process::Command,
    time::{Duration, Instant},
};

/// Check that a child's frees of its copies do not end the parent's blocks
/// and that the child, which is not asked for, is not traced.
#[test]
fn fork_leaves_the_parent_as_it_is() {
    let mut parent = Process::start_ready(Command::new(program("fork")));
    let leakctl = Leakctl::attach(parent.pid(), &["--min-age", "0s"]);
    parent.go();
    let child = i32::try_from(parent.json_line()["child"].as_i64().expect("a pid")).expect("a pid");
    parent.go();
    assert_eq!(parent.json_line()["child_blocks"], 500);
    let report = leakctl.interrupt();
    let site = assert_first_site(&report, "leak_in_parent");
    assert_eq!(site.outstanding(), (1000, 150_000), "{}", site.0);
    assert_eq!(report.target(parent.pid()).outstanding_in("leak_in_child"), (0, 0));
    assert_nothing_left(parent.pid());
    assert_nothing_left(child);
    parent.end();
}

/// Check that `--follow-forks` reports the child's own blocks as the child's,
/// from when leakctl says that it is attached to it.
#[test]
fn follow_forks_reports_the_child_too() {
    let mut parent = Process::start_ready(Command::new(program("fork")));
    let mut leakctl = Leakctl::attach(parent.pid(), &["--min-age", "0s", "--follow-forks"]);
    parent.go();
    let child = i32::try_from(parent.json_line()["child"].as_i64().expect("a pid")).expect("a pid");
    leakctl.wait_said(&format!("(pid {child})"));
    parent.go();
    assert_eq!(parent.json_line()["child_blocks"], 500);
    let report = leakctl.interrupt();
    let of_parent = report.target(parent.pid()).outstanding_in("leak_in_parent");
    assert_eq!(of_parent, (1000, 150_000), "{:#}", report.0);
    let of_child = report.target(child).outstanding_in("leak_in_child");
    assert_eq!(of_child, (500, 125_000), "{:#}", report.0);
    assert_eq!(report.target(parent.pid()).outstanding_in("leak_in_child"), (0, 0));
    assert_nothing_left(parent.pid());
    assert_nothing_left(child);
    parent.end();
}

/// Check that after an exec the old program's memory is not reported and the
/// new program's leak is.
#[test]
fn exec_starts_again() {
    let mut process = Process::start_ready(Command::new(program("exec")));
    let pid = process.pid();
    let leakctl = Leakctl::attach(pid, &["--min-age", "1s"]);
    process.go();
    assert_eq!(process.json_line()["leaked_blocks"], 1000);
    process.go();
    assert_eq!(process.wait_ready(), pid, "exec keeps the pid");
    // By then the new program must be under trace: what it leaks later is
    // what the test counts on.
    let loaded = process.truth();
    process.wait_until_leaked(loaded.blocks + a_lot());
    std::thread::sleep(Duration::from_millis(1500));
    let report = leakctl.interrupt();
    let after = process.truth();
    let target = report.target(pid);
    assert_eq!(target.outstanding_in("leak_before_exec"), (0, 0), "{:#}", target.0);
    let (blocks, bytes) = target.first_site("leak_after_exec").outstanding();
    assert!(blocks > 0 && blocks <= after.blocks, "{blocks} of {after:?}");
    assert_eq!(bytes, blocks * 120);
    assert_nothing_left(pid);
    process.end();
}

/// Check that a process that leaks and ends under trace gets its report by
/// itself, exact and with names.
#[test]
fn exit_gives_the_final_report() {
    let mut command = Command::new(program("short"));
    command.args(["0", "0", "wait"]);
    let mut process = Process::start_ready(command);
    let leakctl = Leakctl::attach(process.pid(), &["--min-age", "0s"]);
    process.go();
    assert!(process.wait().success());
    let report = leakctl.finish();
    let site = assert_first_site(&report, "leak_orders");
    assert_eq!(site.outstanding(), (7, 700), "{}", site.0);
    let target = report.target(process.pid());
    assert_eq!(target.outstanding(), (7, 700));
    assert_eq!((target.coverage("allocations"), target.coverage("frees")), (1000, 993));
    assert_eq!(target.lost(), 0);
}

/// Blocks, most of them leaked after leakd has noticed what the program has just
/// mapped.
fn a_lot() -> u64 {
    scaled(2000, 300)
}

/// Loads the plugin under trace and waits until it has leaked a lot.
fn load_plugin(plugin: &str) -> (Process, Leakctl) {
    let mut command = Command::new(program("plugin_host"));
    command.arg(program(plugin));
    let mut process = Process::start_ready(command);
    let leakctl = Leakctl::attach(process.pid(), &["--min-age", "1s"]);
    // The library comes some time after the attach, when all is quiet.
    std::thread::sleep(Duration::from_secs(1));
    process.go();
    assert_eq!(process.line(), "loaded");
    process.wait_until_leaked(a_lot());
    std::thread::sleep(Duration::from_millis(1500));
    (process, leakctl)
}

/// Check that an allocator that is loaded during the trace is found and its
/// leak named.
#[test]
fn allocator_loaded_later() {
    let (mut process, leakctl) = load_plugin("plugin_allocator.so");
    let report = leakctl.interrupt();
    let after = process.truth();
    let (blocks, bytes) = report.target(process.pid()).outstanding_in("leak_in_plugin");
    assert!(blocks > 0 && blocks <= after.blocks, "{blocks} of {after:?}: {:#}", report.0);
    assert_eq!(bytes, blocks * 222);
    assert_nothing_left(process.pid());
    process.end();
}

/// Check that code that is loaded during the trace is named, all of its
/// blocks counted.
#[test]
fn code_loaded_later() {
    let (mut process, leakctl) = load_plugin("plugin_plain.so");
    let report = leakctl.interrupt();
    let after = process.truth();
    let site = assert_first_site(&report, "leak_in_plugin");
    let (blocks, bytes) = site.outstanding();
    assert!((a_lot()..=after.blocks).contains(&blocks), "{blocks} of {after:?}");
    assert_eq!(bytes, blocks * 444);
    assert_eq!(site.allocating_frame().and_then(|frame| frame.module()), Some("plugin_plain.so"));
    assert_nothing_left(process.pid());
    process.end();
}

/// Check that a leak is named although its library was unloaded before the
/// report.
#[test]
fn code_unloaded_before_the_report() {
    let mut command = Command::new(program("plugin_host"));
    // A tenth of a second of rounds, or five seconds where they are twenty times as
    // long.
    command.arg(program("plugin_plain.so")).arg((stretched(100) / 20).max(100).to_string());
    let mut process = Process::start_ready(command);
    let leakctl = Leakctl::attach(process.pid(), &["--min-age", "0s", "--top", "1000"]);
    process.go();
    assert_eq!(process.line(), "loaded");
    assert_eq!(process.line(), "unloaded");
    let report = leakctl.interrupt();
    let leaked = process.truth();
    let found = report.target(process.pid()).outstanding_in("leak_in_plugin");
    assert_eq!(found, (leaked.blocks, leaked.bytes), "{:#}", report.0);
    assert_nothing_left(process.pid());
    process.end();
}

/// Check that an allocator in the program itself is traced, and that a jump
/// out of it by a signal handler does not blind leakd to the thread.
#[test]
fn longjmp_out_of_the_allocator() {
    assert_finds("longjmp", "leak_after_longjmp", 180);
}

/// Check that mappings that come and go do no harm.
#[test]
fn mappings_come_and_go() {
    let mut command = Command::new(program("unmap"));
    command.arg(program("plugin_plain.so"));
    watch(command, &[]).assert_leak("leak_orders", 160);
}

/// Check that a program whose file is deleted is traced like any other.
#[test]
fn deleted_executable() {
    let folder = tempfile::tempdir().expect("cannot make a folder");
    let copy = folder.path().join("orders");
    std::fs::copy(program("orders_static"), &copy).expect("cannot copy the program");
    let mut program = Process::start_ready(Command::new(&copy));
    std::fs::remove_file(&copy).expect("cannot delete the copy");
    let leakctl = Leakctl::attach(program.pid(), &["--min-age", "0s"]);
    let attached = program.truth();
    program.wait_until_leaked(attached.blocks + enough());
    let report = leakctl.interrupt();
    let (blocks, bytes) = report.target(program.pid()).outstanding_in("leak_orders");
    assert!(blocks >= enough(), "{blocks} blocks: {:#}", report.0);
    assert_eq!(bytes, blocks * 200);
    assert_nothing_left(program.pid());
    program.end();
}

/// Check that a program in another mount namespace, whose files have no name
/// here, is traced like any other.
#[test]
fn other_mount_namespace() {
    let folder = tempfile::tempdir().expect("cannot make a folder");
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c"])
        .arg(r#"mount -t tmpfs none "$1" && cp "$0" "$1/orders" && exec "$1/orders""#)
        .arg(program("orders_static"))
        .arg(folder.path());
    let mut found = watch(command, &[]);
    assert!(!folder.path().join("orders").exists(), "the namespace is not another one");
    found.assert_leak("leak_orders", 200);
}

/// Check that two processes are traced by one leakctl, each with its leak.
#[test]
fn two_processes_at_once() {
    let mut first = Process::start_ready(Command::new(program("orders_no_debug")));
    let mut second = Process::start_ready(Command::new(program("orders_cpp")));
    let pid = second.pid().to_string();
    let leakctl = Leakctl::attach(first.pid(), &[&pid, "--min-age", "1s"]);
    for process in [&mut first, &mut second] {
        let attached = process.truth();
        process.wait_until_leaked(attached.blocks + enough());
    }
    std::thread::sleep(Duration::from_millis(1500));
    let report = leakctl.interrupt();
    for (process, size) in [(&mut first, 200), (&mut second, 316)] {
        let (blocks, bytes) = report.target(process.pid()).first_site("leak_orders").outstanding();
        assert!(blocks >= enough(), "{blocks} blocks: {:#}", report.0);
        assert_eq!(bytes, blocks * size);
        assert_nothing_left(process.pid());
        process.end();
    }
}

/// Check that a process that nobody asked for gets no probe, though it runs
/// the same program on the same libraries.
#[test]
fn bystanders_are_left_alone() {
    let mut bystander = Process::start_ready(Command::new(program("orders_no_debug")));
    let mut process = Process::start_ready(Command::new(program("orders_no_debug")));
    let leakctl = Leakctl::attach(process.pid(), &["--min-age", "0s"]);
    assert!(probes_present(process.pid()), "no probe is to be seen in the target");
    assert_nothing_left(bystander.pid());
    let attached = process.truth();
    process.wait_until_leaked(attached.blocks + 10);
    let report = leakctl.interrupt();
    assert_first_site_or_younger(&report, process.pid());
    assert_nothing_left(bystander.pid());
    assert_nothing_left(process.pid());
    process.end();
    bystander.end();
}

/// With `--min-age 0s` honest blocks may come before the leak.
fn assert_first_site_or_younger(report: &crate::support::report::Report, pid: i32) {
    assert!(report.target(pid).outstanding_in("leak_orders").0 >= 10, "{:#}", report.0);
}

/// Check that `--for` ends the trace without anybody's help.
#[test]
fn ends_by_itself() {
    let mut process = Process::start_ready(Command::new(program("orders_no_debug")));
    let pid = process.pid().to_string();
    let outcome = leakctl(["attach", &pid, "--json", "--for", "4s", "--min-age", "1s"]);
    assert_first_site(&outcome.report(1), "leak_orders");
    assert_nothing_left(process.pid());
    process.end();
}

/// Check that a process without a leak has exit status 0 and no site.
#[test]
fn nothing_found() {
    let mut process = Process::start_ready({
        let mut command = Command::new(program("short"));
        command.env("NO_LEAK", "1").args(["0", "0", "wait"]);
        command
    });
    let mut leakctl = Leakctl::attach(process.pid(), &["--min-age", "0s"]);
    process.go();
    assert!(process.wait().success());
    let report = leakctl.outcome().report(0);
    let target = report.target(process.pid());
    assert_eq!(target.sites().count(), 0, "{:#}", target.0);
    assert_eq!(target.outstanding(), (0, 0));
}

/// Check that after kill -9 of leakctl the target runs on and no probe stays.
#[test]
fn kill_9_leaves_nothing() {
    let mut process = Process::start_ready(Command::new(program("orders_no_debug")));
    let pid = process.pid();
    let mut leakctl = Leakctl::attach(pid, &[]);
    let attached = process.truth();
    process.wait_until_leaked(attached.blocks + 100);
    let live = changed_code(pid);
    assert!(
        live.iter().any(|change| change.in_memory == 0xCC || change.in_memory == 0xE8),
        "no probe is to be seen while leakctl traces: {live:?}"
    );
    leakctl.signal(Signal::SIGKILL);
    assert_eq!(leakctl.outcome().status, 128 + 9);
    wait_until_nothing_left(pid);
    let then = process.truth();
    let later = wait_for("the program to go on", || {
        let now = process.truth();
        (now.rounds >= then.rounds + scaled(1000, 100)).then_some(now)
    });
    assert!(later.blocks > then.blocks);
    assert_nothing_left(pid);
    process.end();
}

/// Check that kill -9 leaves no probe where it comes while leakctl puts its probes in:
/// when the first of many is there.
#[test]
fn killed_while_it_attaches() {
    let mut process = Process::start_ready(Command::new(program("crowd")));
    let pid = process.pid().to_string();
    let digits = |number: u32| (0..4).rev().map(move |digit| number >> (2 * digit) & 3);
    let names = (0..256).map(|number| digits(number).map(|d| d.to_string()).collect::<String>());
    let functions: Vec<_> = names.map(|name| format!("crowd_{name}:size=1,ret")).collect();
    let mut arguments = vec!["attach", &pid, "--no-daemon", "--for", "1h"];
    arguments.extend(functions.iter().flat_map(|function| ["--alloc", function]));
    for _ in 0..scaled(20, 2) {
        let mut leakctl = Leakctl::start(&arguments);
        let began = Instant::now();
        // Of its own code alone: all of libc's takes longer to look at than to probe.
        while changed_code_of(process.pid(), "/crowd").is_empty() {
            assert!(began.elapsed() < PATIENCE, "it never attaches");
        }
        leakctl.try_signal(Signal::SIGKILL);
        leakctl.outcome();
        wait_until_nothing_left(process.pid());
    }
    process.end();
}

/// Check that kill -9 leaves no probe either where it comes while leakctl takes its
/// probes out. In that moment the kernel leaves them where they are; it comes within
/// some 60 ms of Ctrl-C.
#[test]
fn killed_while_it_detaches() {
    let mut process = Process::start_ready(Command::new(program("orders_no_debug")));
    let pid = process.pid();
    let rounds = scaled(40, 2);
    for round in 0..rounds {
        let mut leakctl = Leakctl::attach(pid, &["--no-daemon"]);
        leakctl.signal(Signal::SIGINT);
        std::thread::sleep(Duration::from_micros(stretched(60_000) * round / rounds));
        leakctl.try_signal(Signal::SIGKILL);
        leakctl.outcome();
        wait_until_nothing_left(pid);
    }
    process.end();
}
