//! `leakctl run`.

use crate::{
    host::scaled,
    support::{
        invocation::{Leakctl, Outcome},
        programs::program,
        report::{Report, assert_first_site},
    },
};
use std::{os::unix::fs::PermissionsExt, path::Path, process::Command};

/// Runs `leakctl run OPTIONS -- PROGRAM ARGUMENTS`.
fn run(options: &[&str], program: &Path, arguments: &[&str]) -> Outcome {
    let mut leakctl = Leakctl::start(
        ["run"]
            .iter()
            .chain(Leakctl::tables())
            .chain(options)
            .chain(&["--"])
            .map(AsRef::as_ref)
            .chain([program.as_os_str()])
            .chain(arguments.iter().map(AsRef::as_ref)),
    );
    leakctl.outcome()
}

/// Runs with a JSON report into a file.
fn run_for_report(program: &Path, environment: &[(&str, &str)]) -> (Outcome, Report) {
    let mut command = Command::new(program);
    command.envs(environment.iter().copied());
    run_command_for_report(&command)
}

/// The same with arguments.
fn run_command_for_report(traced: &Command) -> (Outcome, Report) {
    let folder = tempfile::tempdir().expect("cannot make a folder");
    let file = folder.path().join("report.json");
    let mut command = Leakctl::command();
    command.args(["run", "--json"]).args(Leakctl::tables());
    command.arg("--output").arg(&file).arg("--").arg(traced.get_program());
    command.args(traced.get_args());
    command.envs(traced.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let outcome = Leakctl::start_command(command).outcome();
    let text = std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("no report was written: {error}; {outcome:?}"));
    let report = Report::parse(&text);
    (outcome, report)
}

/// Check that after an exec the sums are of the last program: what the one before it
/// had not freed was not freed, and is not held either.
#[test]
fn sums_after_an_exec() {
    let script = "ls / >/dev/null; exec \"$0\"";
    let short = program("short");
    let (_, once) = run_for_report(&short, &[]);
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(&short);
    let (_, after) = run_command_for_report(&shell);
    let [once, after] = [&once, &after].map(|report| report.targets().next().expect("a target"));
    assert_eq!((&once.0["execs"], &after.0["execs"]), (&0.into(), &1.into()));
    assert_eq!(once.0["heap"], after.0["heap"]);
    let shells = after.coverage("allocations") - once.coverage("allocations");
    assert!(shells > 0, "the shell allocates, too");
}

/// Check that a command is traced, and what it held before an exec forgotten, also if
/// the new program lives for milliseconds only, and where the tracing file system is
/// not to be had.
#[test]
fn without_tracefs() {
    let folder = tempfile::tempdir().expect("cannot make a folder");
    let file = folder.path().join("report.json");
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs none /sys/kernel/tracing && \
                  exec \"$0\" run --json --output \"$1\" -- sh -c 'exec \"$0\"' \"$2\"";
    command.args(["--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_leakctl")]);
    command.arg(&file).arg(program("short")).env("NO_COLOR", "1");
    let outcome = Leakctl::start_command(command).outcome();
    assert_eq!(outcome.status, 0, "{outcome:?}");
    let report = Report::parse(&std::fs::read_to_string(&file).expect("a report"));
    // Too short a life for its stacks, but not for its blocks.
    let target = report.targets().next().expect("a target");
    assert_eq!(target.outstanding(), (7, 700), "{}", target.0);
}

/// Check that a command is traced from its first instruction to its last:
/// the same numbers as valgrind has.
#[test]
fn exact_from_the_first_instruction() {
    let (outcome, report) = run_for_report(&program("short"), &[]);
    assert_eq!(outcome.status, 0, "{outcome:?}");
    assert_eq!(outcome.stdout, "", "stdout is the command's own");
    let target = report.targets().next().expect("a target");
    assert_eq!((target.coverage("allocations"), target.coverage("frees")), (1000, 993));
    assert_eq!(target.outstanding(), (7, 700));
    assert_eq!(target.lost(), 0);
    let number = |value: &serde_json::Value| value.as_u64().expect("a number");
    let lived = number(&target.0["duration_ns"]);
    for site in target.sites() {
        assert!(number(&site.0["oldest_age_ns"]) <= lived, "{lived} ns: {}", site.0);
    }
    assert_eq!(assert_first_site(&report, "leak_orders").outstanding(), (7, 700));
}

/// Check that other libcs, static programs and languages are traced from the
/// start as well.
#[test]
fn exact_in_programs_of_every_kind() {
    let rounds = scaled(300, 60);
    for (name, size) in [
        ("orders", 200),
        ("orders_static", 200),
        ("orders_musl", 200),
        ("orders_musl_static", 200),
        ("orders_cpp", 316),
        ("orders_rs", 264),
    ] {
        let (outcome, report) = run_for_report(&program(name), &[("ROUNDS", &rounds.to_string())]);
        assert_eq!(outcome.status, 0, "{name}: {outcome:?}");
        assert_eq!(outcome.stdout.lines().count(), 2, "{name}'s own two lines: {outcome:?}");
        let target = report.targets().next().expect("a target");
        assert_eq!(
            target.outstanding_in("leak_orders"),
            (rounds, rounds * size),
            "{name}: {:#}",
            target.0
        );
    }
}

/// Check that the report for people goes to stderr, with the leak and the
/// heap's sum.
#[test]
fn text_goes_to_stderr() {
    let outcome = run(&[], &program("short"), &[]);
    assert_eq!((outcome.status, outcome.stdout.as_str()), (0, ""), "{outcome:?}");
    assert!(outcome.stderr.contains("leak_orders"), "{outcome:?}");
    let plain: String = outcome.stderr.chars().filter(|sign| !",_' ".contains(*sign)).collect();
    for figure in ["1000", "993", "700"] {
        assert!(plain.contains(figure), "no {figure} in the heap summary: {outcome:?}");
    }
    assert!(outcome.stderr.lines().all(|line| line.chars().count() <= 80), "{outcome:?}");
}

/// Check that the command's own status is passed on.
#[test]
fn status_is_passed_on() {
    assert_eq!(run(&[], &program("short"), &["7"]).status, 7);
    assert_eq!(run(&["--error-exitcode", "0"], &program("short"), &["7"]).status, 7);
}

/// Check that `--error-exitcode` is the status if blocks are outstanding, and
/// only then.
#[test]
fn error_exitcode() {
    assert_eq!(run(&["--error-exitcode", "99"], &program("short"), &["7"]).status, 99);
    let mut command = Leakctl::command();
    command.args(["run", "--error-exitcode", "99", "--"]).arg(program("short")).arg("7");
    command.env("NO_LEAK", "1");
    assert_eq!(Leakctl::start_command(command).outcome().status, 7);
}

/// Check that a command that is killed by a signal gives 128 + its number,
/// and that its blocks are reported.
#[test]
fn killed_by_a_signal() {
    let signals = [("9", 9), ("15", 15), ("6", 6)];
    for (signal, number) in signals.into_iter().take(scaled(3, 1) as usize) {
        let outcome = run(&[], &program("short"), &["0", signal]);
        assert_eq!(outcome.status, 128 + number, "{outcome:?}");
        assert!(outcome.stderr.contains("leak_orders"), "{outcome:?}");
    }
}

/// Check that a command that cannot be started gives 127 and one line, as
/// from a shell.
#[test]
fn cannot_be_started() {
    let folder = tempfile::tempdir().expect("cannot make a folder");
    let text = folder.path().join("not-a-program");
    std::fs::write(&text, "nothing to run\n").expect("cannot write");
    for path in [Path::new("/nonexistent/command"), folder.path(), &text] {
        let outcome = run(&[], path, &[]);
        assert_eq!(outcome.status, 127, "{outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
        let name = path.file_name().and_then(|name| name.to_str()).expect("our own names");
        assert!(outcome.stderr.contains(name), "the line names the command: {outcome:?}");
    }
}

/// Check that stdin and stdout are the command's.
#[test]
fn streams_belong_to_the_command() {
    let mut leakctl = Leakctl::start(["run", "--", "cat"]);
    leakctl.feed("one\ntwo\n");
    let outcome = leakctl.outcome();
    assert_eq!((outcome.status, outcome.stdout.as_str()), (0, "one\ntwo\n"), "{outcome:?}");
}

/// Check that a command is found by PATH and that its options are its own.
#[test]
fn options_of_the_command_are_its_own() {
    let outcome = Leakctl::start(["run", "--", "printf", "%s %s\\n", "--json", "--for"]).outcome();
    assert_eq!(outcome.stdout, "--json --for\n", "{outcome:?}");
}

/// Check that a command that runs others is traced only itself: the shell's
/// child has no part in the report.
#[test]
fn children_are_not_traced() {
    let mut command = Leakctl::command();
    let folder = tempfile::tempdir().expect("cannot make a folder");
    let file = folder.path().join("report.json");
    command.args(["run", "--json", "--output"]).arg(&file).args([
        "--",
        "sh",
        "-c",
        "\"$0\"; exit 3",
    ]);
    command.arg(program("short"));
    let outcome = Leakctl::start_command(command).outcome();
    assert_eq!(outcome.status, 3, "{outcome:?}");
    let report = Report::parse(&std::fs::read_to_string(&file).expect("a report"));
    assert_eq!(report.targets().count(), 1, "{:#}", report.0);
    let target = report.targets().next().expect("a target");
    assert_eq!(target.outstanding_in("leak_orders"), (0, 0), "{:#}", target.0);
}

/// Check that the command's environment holds nothing of leakctl's.
#[test]
fn environment_is_not_touched() {
    let plain = Command::new("env").env_clear().env("A", "b").output().expect("env runs");
    let mut command = Leakctl::command();
    command.env_clear().env("A", "b").args(["run", "--", "/usr/bin/env"]);
    let outcome = Leakctl::start_command(command).outcome();
    assert_eq!(outcome.stdout, String::from_utf8_lossy(&plain.stdout), "{outcome:?}");
}

/// Check that a command that its loader ends, for want of a library, says so
/// itself and is waited for.
#[test]
fn ends_in_its_loader() {
    let (here, gone) = (b"libc.so.6\0", b"libg.so.6\0");
    let mut file = std::fs::read(program("short")).expect("the program");
    let name = file.windows(here.len()).position(|bytes| bytes == here).expect("it needs libc");
    file[name..name + gone.len()].copy_from_slice(gone);
    let folder = tempfile::tempdir().expect("cannot make a folder");
    let path = folder.path().join("program");
    std::fs::write(&path, file).expect("cannot write");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("it is ours");
    let outcome = run(&[], &path, &[]);
    assert_eq!(outcome.status, 2, "there was no allocator: {outcome:?}");
    assert!(outcome.stderr.contains("error while loading shared libraries"), "{outcome:?}");
    assert!(outcome.stderr.contains("it has exited"), "{outcome:?}");
}
