//! Code that is made at run time: found by the frame pointer or by what follows
//! the call, and named by /tmp/perf-PID.map.

use crate::support::{
    invocation::Leakctl,
    planted::enough,
    probes::assert_nothing_left,
    process::Process,
    programs::{program, source_folder, system_program},
    report::{Report, Site},
    wait_for,
};
use std::process::Command;

/// The bytes of blocks that a site allocates, if they are all of one size.
fn size_of(site: Site<'_>) -> u64 {
    site.number("allocated_bytes") / site.number("allocated_blocks")
}

/// The functions of the stack that allocates blocks of such a size.
fn functions(report: &Report, pid: i32, size: u64) -> Vec<String> {
    let target = report.target(pid);
    let mut sites = target.sites().filter(|site| size_of(*site) == size);
    let site = sites.next().unwrap_or_else(|| panic!("no site of {size}: {:#}", report.0));
    assert_eq!(site.0["stack_end"], "bottom", "{}", site.0);
    assert!(site.number("frame_pointer_steps") > 0, "{}", site.0);
    site.stack().map(|frame| frame.function().unwrap_or("?").to_owned()).collect()
}

fn assert_named(report: &Report, pid: i32) {
    for (size, innermost, compiled) in [
        (1900, "leak_under_frame", "compiled_with_frame"),
        (2100, "leak_under_epilogue", "compiled_with_epilogue"),
    ] {
        let found = functions(report, pid, size);
        assert_eq!(found[..4], [innermost, compiled, "run", "main"], "{found:?}");
        assert_eq!(found.last().map(String::as_str), Some("_start"), "{found:?}");
    }
}

/// Check that code with a frame pointer, and code that gives its frame back
/// right after the call, is walked through and named by its newest names.
#[test]
fn code_made_at_run_time() {
    let mut process = Process::start_ready(Command::new(program("jit")));
    let leakctl = Leakctl::attach(process.pid(), &["--min-age", "0s"]);
    let attached = process.truth();
    process.wait_until_leaked(attached.blocks + enough());
    let report = leakctl.interrupt();
    assert_named(&report, process.pid());
    assert_nothing_left(process.pid());
    process.end();
}

/// Check the same in a container: with another /tmp, and another number there.
#[test]
fn code_made_in_a_container() {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c"])
        .arg(
            r#"exec 9<"$0" && mount -t tmpfs none /tmp && cat <&9 >/tmp/jit && exec 9<&- &&
                chmod +x /tmp/jit && exec /tmp/jit"#,
        )
        .arg(program("jit"));
    let mut process = Process::start(command);
    assert_eq!(process.line(), "ready 1", "its number in the namespace");
    let children = format!("/proc/{0}/task/{0}/children", process.pid());
    let pid = wait_for("unshare's child", || {
        std::fs::read_to_string(&children).ok()?.split_whitespace().next()?.parse().ok()
    });
    let leakctl = Leakctl::attach(pid, &["--min-age", "0s"]);
    let attached = process.truth();
    process.wait_until_leaked(attached.blocks + enough());
    let report = leakctl.interrupt();
    assert_named(&report, pid);
    process.end();
}

/// Check that stacks lead through the code that node compiles, and that its
/// functions are named.
#[test]
fn node() {
    let mut command = Command::new(system_program("node", "nodejs"));
    command.args(["--perf-basic-prof", "--interpreted-frames-native-stack"]);
    // There it leaves a log, too.
    let folder = tempfile::tempdir().expect("a directory");
    command.arg(source_folder().join("jit.js")).current_dir(folder.path());
    let mut process = Process::start_ready(command);
    let pid = process.pid();
    let leakctl = Leakctl::attach(pid, &["--min-age", "0s", "--top", "100000"]);
    let mut handled = || {
        process.go();
        process.json_line().as_u64().expect("a number")
    };
    let attached = handled();
    wait_for("some thousands of buffers", || (handled() >= attached + 5000).then_some(()));
    let report = leakctl.interrupt();
    let target = report.target(pid);
    let mut named = 0;
    for site in target.sites().filter(|site| (45_000..=45_004).contains(&size_of(*site))) {
        let functions: Vec<_> = site.stack().filter_map(|frame| frame.function()).collect();
        assert_eq!(site.0["stack_end"], "bottom", "{}", site.0);
        assert_eq!(functions.last(), Some(&"_start"), "{functions:?}");
        // Which of them are inlined into others is node's choice.
        let named_here = functions.iter().any(|name| name.contains("jit.js"));
        named += if named_here { site.number("allocated_blocks") } else { 0 };
    }
    assert!(named >= 1000, "{named} blocks under the program's functions: {:#}", report.0);
    let stacks = &target.0["coverage"]["stacks"];
    let (walked, complete) = (stacks["walked"].as_u64(), stacks["complete"].as_u64());
    let (walked, complete) = (walked.expect("a number"), complete.expect("a number"));
    assert!(complete * 100 >= walked * 99, "{stacks} {}", target.0["coverage"]["stopped"]);
    process.end();
    let _ = std::fs::remove_file(format!("/tmp/perf-{pid}.map"));
}
