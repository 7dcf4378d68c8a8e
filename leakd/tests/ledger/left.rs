//! Calls that never return: left by longjmp, or by leakd, which detaches in
//! mid-call. What comes after them must be seen all the same.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use leakd::bpf::features::ProbeMethod;
use leakd::engine::Settings;
use leakd::engine::target::{Target, TargetLook};
use leakd_common::target::Counter;
use nix::sys::resource::{Resource, setrlimit};

use super::driver::Driver;
use super::host::scaled;
use super::interposed::plain_with_calls;
use super::methods::at_hand;
use super::model::{Habits, Model, Totals};
use super::operation::{Kind, Operation, THREADS};
use super::programs;
use super::trace::{QUOTA, Trace};

/// Scenarios of `leave.c`.
const SCENARIOS: [&str; 4] = [
    "at the same place",
    "further up the stack",
    "further down, the left call's place written to",
    "further down, the left call's place as it was",
];

/// Runs a program under trace: from the byte that starts it to the one that
/// says that it is done.
fn run(trace: &mut Trace, command: &mut Command) -> TargetLook {
    run_and(trace, command, |_| {})
}

/// The same, with a look at the target in the middle.
fn run_and(
    trace: &mut Trace,
    command: &mut Command,
    meanwhile: impl FnOnce(&Target),
) -> TargetLook {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("cannot start the program");
    let mut answers = child.stdout.take().expect("stdout is a pipe");
    answers.read_exact(&mut [0]).expect("it has ended early");
    let slot = trace.attach(child.id());
    meanwhile(trace.engine().target(slot).expect("it is attached"));
    let mut orders = child.stdin.take().expect("stdin is a pipe");
    orders.write_all(b"g").expect("it has ended early");
    let done = answers.read_exact(&mut [0]);
    let look = done.is_ok().then(|| trace.look(slot));
    trace.detach(slot);
    drop(orders);
    let status = child.wait().expect("it can be waited for");
    assert!(status.success(), "{command:?}: {status}");
    look.expect("it did not say that it is done")
}

/// Runs a scenario under trace; checks what was seen of it.
fn check(trace: &mut Trace, program: &Path, scenario: usize, when: &str, passed_on: u64) {
    let look = run(trace, Command::new(program).args([&scenario.to_string(), when]));
    let counted =
        [Counter::Inserted, Counter::Removed, Counter::UnknownFrees, Counter::LostUnpaired]
            .map(|counter| look.counters.get(counter));
    let method = trace.engine().method();
    let what = format!("{}, passed on: {passed_on}, {method:?}", SCENARIOS[scenario]);
    assert_eq!(counted, [10 + passed_on, passed_on, 0, 1], "{what}: {:?}", look.counters);
    let bytes: u64 = look.sites.values().map(|site| site.outstanding_bytes()).sum();
    assert_eq!(bytes, 1000, "{what}");
}

/// Check that blocks are counted after a call was left by longjmp, wherever on
/// the stack they are asked for, and that what was lost is said: one entry
/// without its return.
#[test]
fn by_longjmp() {
    let interposer = plain_with_calls();
    let interposed = programs::compile("leave.c", &[interposer.to_str().expect("a path in UTF-8")]);
    let own = programs::compile("leave.c", &["-DOWN"]);
    for method in at_hand(&[ProbeMethod::Session, ProbeMethod::Multi]) {
        let settings = Settings { quota: QUOTA, method_limit: Some(method), ..Settings::default() };
        let mut trace = Trace::start(settings);
        for scenario in 0..SCENARIOS.len() {
            check(&mut trace, &own, scenario, "1", 0);
            check(&mut trace, &interposed, scenario, "1", 0);
            // Here the block that was allocated and freed is seen, too.
            check(&mut trace, &interposed, scenario, "2", 1);
        }
    }
}

/// Allocators whose operator new does not end in malloc, and throws itself.
fn throwing_allocators() -> [PathBuf; 2] {
    [
        programs::library("libjemalloc.so.2", "libjemalloc2"),
        programs::library("libtcmalloc_minimal.so.4", "libtcmalloc-minimal4"),
    ]
}

/// Check that a program that catches what operator new throws when asked for
/// too much is not aborted for being traced: an exception cannot pass a
/// return address that has been replaced.
#[test]
fn by_exception() {
    let program = programs::compile("throw.cpp", &["-lstdc++"]);
    let mut trace = Trace::start(Settings { quota: QUOTA, ..Settings::default() });
    for preload in throwing_allocators() {
        let mut command = Command::new(&program);
        command.env("LD_PRELOAD", &preload).stderr(Stdio::null());
        let look = run(&mut trace, &mut command);
        let counted =
            [Counter::Inserted, Counter::LostUnpaired].map(|counter| look.counters.get(counter));
        // The exceptions themselves are blocks, too, and freed when caught.
        assert_eq!(counted, [20, 0], "{}: {:?}", preload.display(), look.counters);
        let outstanding: u64 = look.sites.values().map(|site| site.outstanding_blocks()).sum();
        assert_eq!(outstanding, 10, "{}", preload.display());
    }
}

/// Check that a program which may have no more than 1 GiB, and catches what
/// operator new throws beyond, is not aborted either: there operator new is
/// left alone, and the report says so.
#[test]
fn by_exception_within_a_limit() {
    const MEBIBYTE: u64 = 1 << 20;
    let program = programs::compile("throw.cpp", &["-lstdc++"]);
    let mut trace = Trace::start(Settings { quota: QUOTA, ..Settings::default() });
    for preload in throwing_allocators() {
        let mut command = Command::new(&program);
        command.arg("2048").env("LD_PRELOAD", &preload).stderr(Stdio::null());
        let limit = || {
            let most = 1024 * MEBIBYTE;
            setrlimit(Resource::RLIMIT_AS, most, most).map_err(std::io::Error::from)
        };
        // SAFETY: between fork and exec, it makes one system call only.
        unsafe { command.pre_exec(limit) };
        let mut unprobed = Vec::new();
        let look = run_and(&mut trace, &mut command, |target| {
            unprobed = target.probes().unprobed().to_vec();
        });
        let counted =
            [Counter::Inserted, Counter::LostUnpaired].map(|counter| look.counters.get(counter));
        assert_eq!(counted, [20, 0], "{}: {:?}", preload.display(), look.counters);
        let symbols: Vec<&str> = unprobed.iter().map(|one| one.symbol.as_str()).collect();
        assert!(symbols.contains(&"_Znwm"), "{}: {symbols:?}", preload.display());
    }
}

/// Check that a trace is exact although an earlier one of the same process
/// ended while its threads were in calls of the allocator.
#[test]
fn by_detaching() {
    let mut trace = Trace::start(Settings { quota: QUOTA, ..Settings::default() });
    let mut driver = Driver::start(&[]);
    // Each thread: calloc, resize it, free it; large enough to take a while.
    let busy: Vec<Operation> = (0..12)
        .map(|number| {
            let source = (number % 3 != 0).then(|| number as usize - 1);
            let kind = [Kind::Calloc, Kind::Realloc, Kind::Free][(number % 3) as usize];
            let thread = number / 3 % THREADS;
            let size = 60_000 + number % 3 * 100_000;
            Operation { source, extra: 1, ..Operation::new(kind, thread, size) }
        })
        .collect();
    for _ in 0..scaled(20, 3) {
        driver.begin_to_repeat(0, &busy);
        let slot = trace.attach(driver.pid());
        trace.detach(slot);
        driver.finish(0, busy.len());

        let slot = trace.attach(driver.pid());
        check_exactly(&mut trace, &mut driver, slot);
        trace.detach(slot);
    }
}

/// Check that a trace is exact although the probes of the one before it are
/// still there: a child process that has been forked, and not come to exec
/// yet, has their descriptors, too.
#[test]
fn by_a_child_with_the_descriptors() {
    let mut trace = Trace::start(Settings { quota: QUOTA, ..Settings::default() });
    let mut driver = Driver::start(&[]);
    let slot = trace.attach(driver.pid());
    let (begun, begin) = std::io::pipe().expect("a pipe");
    let (held, release) = std::io::pipe().expect("a pipe");
    let (begin, held) = (OwnedFd::from(begin), OwnedFd::from(held));
    let release_in_parent = release.as_raw_fd();
    let child = std::thread::spawn(move || {
        let mut command = Command::new("true");
        // SAFETY: read(2), write(2) and close(2) on the child's own copies of
        // descriptors, with one byte of its stack, are safe between fork and
        // exec, and nothing there uses the one that is closed.
        unsafe {
            command.pre_exec(move || {
                // The end of the test, whichever, is to release the child.
                libc::close(release_in_parent);
                nix::unistd::write(&begin, &[0])?;
                nix::unistd::read(&held, &mut [0])?;
                Ok(())
            });
        }
        command.status()
    });
    (&begun).read_exact(&mut [0]).expect("the child has begun");
    trace.detach(slot);
    let slot = trace.attach(driver.pid());
    check_exactly(&mut trace, &mut driver, slot);
    (&release).write_all(b"g").expect("the child waits");
    let status = child.join().expect("a thread").expect("cannot start true");
    assert!(status.success(), "{status}");
    check_exactly(&mut trace, &mut driver, slot);
}

/// Allocates and frees under a trace that has seen nothing outstanding yet;
/// leaves nothing.
fn check_exactly(trace: &mut Trace, driver: &mut Driver, slot: u16) {
    let exact: Vec<Operation> = (0..400)
        .map(|number| Operation::new(Kind::Malloc, number, 1 + number))
        .chain((0..300).map(Operation::free))
        .collect();
    let before = trace.totals(slot, driver);
    let outcomes = driver.run(0, &exact);
    let mut model = Model::new(Habits::default(), &[]);
    model.perform(0, &exact, &outcomes);
    let (expected, seen) = (model.totals(), trace.totals(slot, driver));
    let calls = |totals: &Totals| (totals.inserted, totals.removed, totals.unknown_frees);
    let (now, then) = (calls(&seen), calls(&before));
    assert_eq!((now.0 - then.0, now.1 - then.1, now.2 - then.2), calls(&expected));
    assert_eq!(seen.outstanding, expected.outstanding);
    assert!(seen.faults.is_empty(), "{:?}", seen.faults);
    driver.run(exact.len(), &(300..400).map(Operation::free).collect::<Vec<_>>());
}
