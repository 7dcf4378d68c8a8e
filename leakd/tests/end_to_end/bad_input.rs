//! What cannot be traced is refused in one clear line, with exit status 2 and
//! nothing left attached; what is only hostile is put up with.

use crate::host::{scaled, stretched};
use crate::support::{
    invocation::{Leakctl, Outcome, leakctl},
    mappings::executable_mappings,
    planted::watch,
    probes::assert_nothing_left,
    process::Process,
    programs::program,
    report::Report,
};
use std::{
    ffi::OsStr,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

fn attach(pid: impl ToString) -> Outcome {
    leakctl(["attach", &pid.to_string(), "--for", "1s"])
}

/// A pid that no process has.
fn unused_pid() -> i32 {
    let mut process = Process::start(Command::new("true"));
    process.wait();
    process.pid()
}

/// Check that a pid without a process is refused.
#[test]
fn no_such_process() {
    attach(unused_pid()).assert_refused(&["no process", "no such process", "does not exist"]);
    attach(i32::MAX).assert_refused(&["no process", "no such process", "does not exist"]);
}

/// Check that what is no pid at all is refused.
#[test]
fn not_a_pid() {
    for pid in ["0", "-1", "one", "", "99999999999999999999"] {
        let outcome = leakctl(["attach", pid]);
        assert_eq!(outcome.status, 2, "{outcome:?}");
        assert_eq!(outcome.stdout, "", "{outcome:?}");
    }
    assert_eq!(leakctl(["attach"]).status, 2);
    let named = leakctl(["attach", "nginx"]);
    assert!(named.stderr.contains("pgrep -a NAME"), "{named:?}");
}

/// Check that a kernel thread is refused.
#[test]
fn kernel_thread() {
    const PF_KTHREAD: u64 = 0x0020_0000;
    let is_kernel_thread = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let flags = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(6)?.parse().ok());
        flags.is_some_and(|flags: u64| flags & PF_KTHREAD != 0)
    };
    let pid = (2..1000)
        .find(is_kernel_thread)
        .expect("this test needs to see kernel threads: run it outside of a pid namespace");
    attach(pid).assert_refused(&["kernel thread"]);
}

/// Check that a zombie is refused.
#[test]
fn zombie() {
    let mut parent = Process::start_ready(Command::new(program("zombie")));
    let zombie = parent.json_line()["zombie"].as_i64().expect("a pid");
    attach(zombie).assert_refused(&["zombie", "has ended", "has exited"]);
    parent.end();
}

/// Check that a 32-bit process is refused.
#[test]
fn thirty_two_bit() {
    let mut process = Process::start_ready(Command::new(program("orders_32")));
    attach(process.pid()).assert_refused(&["32-bit"]);
    assert_nothing_left(process.pid());
    process.end();
}

/// Check that a program without any allocator is refused, with a hint at the
/// option that would help.
#[test]
fn no_allocator() {
    let mut process = Process::start_ready(Command::new(program("bare")));
    attach(process.pid()).assert_refused(&["--alloc"]);
    assert_nothing_left(process.pid());
    process.end();
}

/// Check that a static program without symbols is refused with the same hint.
#[test]
fn stripped_static_program() {
    let mut process = Process::start_ready(Command::new(program("orders_stripped")));
    attach(process.pid()).assert_refused(&["--alloc"]);
    assert_nothing_left(process.pid());
    process.end();
}

/// Check that wrong `--alloc` and `--free` are refused, naming what is wrong.
#[test]
fn wrong_specifications() {
    let mut process = Process::start_ready(Command::new(program("pool")));
    let pid = process.pid().to_string();
    let try_with = |option: &str, specification: &str| {
        leakctl(["attach", &pid, "--for", "1s", option, specification])
    };
    for (option, specification) in [
        ("--alloc", "xpool_alloc:size"),
        ("--alloc", "xpool_alloc:size=99,ret"),
        ("--alloc", "xpool_alloc:colour=1"),
        ("--alloc", ":size=1,ret"),
        ("--alloc", ""),
        ("--free", "xpool_free:ptr=0"),
        ("--free", "xpool_free:ptr=-1"),
    ] {
        let outcome = try_with(option, specification);
        assert_eq!(outcome.status, 2, "{option} {specification}: {outcome:?}");
        assert_eq!(outcome.stdout, "", "{option} {specification}: {outcome:?}");
    }
    try_with("--alloc", "no_such_function:size=1,ret").assert_refused(&["no_such_function"]);
    try_with("--free", "no_such_function:ptr=1").assert_refused(&["no_such_function"]);
    assert_nothing_left(process.pid());
    process.end();
}

/// Check that one bad pid among good ones is refused before anything is
/// attached to the good ones.
#[test]
fn one_bad_pid_of_two() {
    let mut process = Process::start_ready(Command::new(program("orders_no_debug")));
    let (good, bad) = (process.pid().to_string(), unused_pid().to_string());
    leakctl(["attach", &good, &bad, "--for", "1s"]).assert_refused(&[&bad]);
    assert_nothing_left(process.pid());
    process.end();
}

/// Check that a process that ends while leakctl attaches to it makes no more
/// trouble than one line, at whatever moment it ends.
#[test]
fn target_ends_while_we_attach() {
    // From one that ends at once to one that ends when the trace has begun.
    let (steps, longest_us) = (scaled(30, 5), stretched(120_000));
    for step in 0..steps {
        let mut command = Command::new(program("flash"));
        command.arg((step * longest_us / steps).to_string());
        let mut process = Process::start_ready(command);
        let outcome = attach(process.pid());
        assert!((0..=2).contains(&outcome.status), "{outcome:?}");
        if outcome.status == 2 {
            assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
            assert_eq!(outcome.stdout, "", "{outcome:?}");
        } else {
            assert_ne!(outcome.stdout, "", "a report is due: {outcome:?}");
        }
        assert!(process.wait().success(), "the process was harmed");
        assert_eq!(crate::support::links::links_on(process.pid()), 0);
    }
}

/// A copy of leakctl that everybody may run.
fn public_leakctl() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("cannot make a folder");
    let everybody = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), everybody).expect("it is our folder");
    let copy = folder.path().join("leakctl");
    std::fs::copy(env!("CARGO_BIN_EXE_leakctl"), &copy).expect("cannot copy leakctl");
    (folder, copy)
}

/// Check that an ordinary user is told what he lacks, even for a process of
/// his own.
#[test]
fn without_root() {
    const NOBODY: u32 = 65534;
    let (_folder, leakctl) = public_leakctl();
    let mut own = Command::new("sleep");
    own.arg("1000").uid(NOBODY).gid(NOBODY);
    let own = Process::start(own);
    let others = Process::start_ready(Command::new(program("orders_no_debug")));
    for pid in [own.pid(), others.pid()] {
        let mut command = Command::new(&leakctl);
        command.args(["attach", &pid.to_string(), "--for", "1s"]).uid(NOBODY).gid(NOBODY);
        Leakctl::start_command(command).outcome().assert_refused(&["root", "CAP_"]);
        assert_nothing_left(pid);
    }
    let mut command = Command::new(&leakctl);
    command.args(["run", "--", "true"]).uid(NOBODY).gid(NOBODY);
    Leakctl::start_command(command).outcome().assert_refused(&["root", "CAP_"]);
}

/// Check that root without capabilities, as in a container, is told so.
#[test]
fn root_without_capabilities() {
    let mut process = Process::start_ready(Command::new(program("orders_no_debug")));
    let (_folder, leakctl) = public_leakctl();
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-all", "--inh-caps", "-all"]).arg(leakctl);
    command.args(["attach", &process.pid().to_string(), "--for", "1s"]);
    Leakctl::start_command(command).outcome().assert_refused(&["CAP_"]);
    assert_nothing_left(process.pid());
    process.end();
}

/// A copy of a program whose ELF header lies about the section headers: the
/// kernel does not look at them, leakd must survive them.
fn with_lying_sections(name: &str, folder: &Path, offset: u64, count: u16) -> PathBuf {
    let copy = folder.join("liar");
    std::fs::copy(program(name), &copy).expect("cannot copy the program");
    let file = std::fs::File::options().write(true).open(&copy).expect("it is our copy");
    // e_shoff, then e_shentsize, e_shnum and e_shstrndx of Elf64_Ehdr.
    file.write_all_at(&offset.to_le_bytes(), 40).expect("cannot write");
    file.write_all_at(&64u16.to_le_bytes(), 58).expect("cannot write");
    file.write_all_at(&count.to_le_bytes(), 60).expect("cannot write");
    file.write_all_at(&1u16.to_le_bytes(), 62).expect("cannot write");
    copy
}

/// Ways to lie: far behind the end, at the end of the address space, into the
/// middle of the code, on the header itself.
const LIES: [(u64, u16); 4] = [(1 << 40, 30), (u64::MAX - 63, 0xffff), (0x1010, 0xff00), (0, 2)];

/// Check that a static program with a corrupt ELF file is refused like one
/// without an allocator.
#[test]
fn corrupt_static_program() {
    for (offset, count) in LIES {
        let folder = tempfile::tempdir().expect("cannot make a folder");
        let liar = with_lying_sections("orders_static", folder.path(), offset, count);
        let mut process = Process::start_ready(Command::new(liar));
        attach(process.pid()).assert_refused(&["--alloc"]);
        assert_nothing_left(process.pid());
        process.end();
    }
}

/// Check that a corrupt program on an honest libc is traced: sizes are right,
/// only names may be missing.
#[test]
fn corrupt_dynamic_program() {
    for (offset, count) in LIES {
        let folder = tempfile::tempdir().expect("cannot make a folder");
        let liar = with_lying_sections("orders_no_debug", folder.path(), offset, count);
        let mut found = watch(Command::new(liar), &[]);
        let target = found.report.target(found.program.pid());
        let site = target.sites().next().unwrap_or_else(|| panic!("no site: {:#}", target.0));
        found.assert_numbers(site, 200);
        let frame = site.stack().find(|frame| frame.module() == Some("liar"));
        assert!(frame.is_some(), "the module is known all the same: {}", site.0);
        found.program.end();
    }
}

/// Check that files of rubbish that the target has mapped as code do not
/// disturb the trace.
#[test]
fn rubbish_mapped_as_code() {
    let libc = executable_mappings(i32::try_from(std::process::id()).expect("a pid"))
        .into_iter()
        .find(|mapping| mapping.path.contains("libc"))
        .expect("the tests run on a shared libc");
    let libc = std::fs::read(libc.link).expect("cannot read libc");
    // A generator of our own, so that each run has the same rubbish.
    let mut state = 1u64;
    let mut noise = |length: usize| -> Vec<u8> {
        let mut step = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        };
        (0..length).map(|_| step()).collect()
    };
    let mut headed = libc[..64].to_vec();
    headed.extend(noise(100_000));
    let truncated = libc[..libc.len() / 3].to_vec();
    let mut damaged = libc.clone();
    for byte in noise(2000).chunks(4) {
        let place = u32::from_le_bytes(byte.try_into().expect("four")) as usize;
        damaged[place % libc.len()] ^= 0xff;
    }
    let folder = tempfile::tempdir().expect("cannot make a folder");
    for (name, rubbish) in [
        ("noise", noise(70_000)),
        ("headed", headed),
        ("truncated", truncated),
        ("damaged", damaged),
    ] {
        let path = folder.path().join(format!("lib{name}malloc.so"));
        std::fs::write(&path, rubbish).expect("cannot write");
        let mut command = Command::new(program("mapped"));
        command.arg(&path);
        watch(command, &[]).assert_leak("leak_orders", 176);
    }
}

/// Check that control characters in a program's name reach no terminal: not
/// by the text, nor by the JSON.
#[test]
fn control_characters_in_names() {
    let folder = tempfile::tempdir().expect("cannot make a folder");
    let evil = folder.path().join(OsStr::from_bytes(b"evil\x1b[31m\x07\nname"));
    std::fs::copy(program("orders_no_debug"), &evil).expect("cannot copy the program");
    let mut process = Process::start_ready(Command::new(&evil));
    let pid = process.pid().to_string();
    let clean = |text: &str| text.chars().all(|sign| sign == '\n' || !sign.is_control());
    let text = leakctl(["attach", &pid, "--for", "2s", "--min-age", "0s"]);
    assert_eq!(text.status, 1, "{text:?}");
    assert!(clean(&text.stdout) && clean(&text.stderr), "{text:?}");
    assert!(!text.stdout.contains("\nname"), "a name must not begin a line: {text:?}");
    let json = leakctl(["attach", &pid, "--for", "2s", "--min-age", "0s", "--json"]);
    assert_eq!(json.status, 1, "{json:?}");
    assert!(clean(&json.stdout) && clean(&json.stderr), "{json:?}");
    let report = Report::parse(&json.stdout);
    let exe = report.target(process.pid()).0["exe"].as_str().expect("a path").to_owned();
    assert!(!exe.contains(char::is_control), "{exe:?}");
    process.end();
}
