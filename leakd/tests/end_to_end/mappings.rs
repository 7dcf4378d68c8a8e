//! Mappings that change under the walker's feet: each stack must be true, or
//! be said to be incomplete.

use crate::support::{
    invocation::Leakctl,
    probes::assert_nothing_left,
    process::Process,
    programs::program,
    report::{Report, Site},
    wait_for,
};
use std::{collections::HashSet, process::Command};

/// The libraries, with the sizes of their blocks.
const LIBRARIES: [(&str, u64); 3] = [("first", 1100), ("second", 1300), ("third", 1700)];

/// The libraries that have complete stacks; checks that these are true.
fn complete(report: &Report, pid: i32) -> HashSet<&'static str> {
    let mut found = HashSet::new();
    for site in report.target(pid).sites().filter(|site| is_complete(*site)) {
        let (blocks, bytes) = (site.number("allocated_blocks"), site.number("allocated_bytes"));
        for (name, size) in LIBRARIES {
            let module = format!("reloaded_{name}.so");
            if bytes == blocks * size {
                assert_true(site, name);
                found.insert(name);
            } else if site.stack().any(|frame| frame.module() == Some(&module)) {
                panic!("{name} did not allocate this: {}", site.0);
            }
        }
    }
    found
}

fn is_complete(site: Site<'_>) -> bool {
    site.0["stack_end"] == "bottom" && site.number("frame_pointer_steps") == 0
}

/// Checks a stack that claims to be whole.
fn assert_true(site: Site<'_>, name: &str) {
    let own = format!("reloaded_{name}.so");
    let mut wanted = ["innermost", "middle", "outermost"]
        .map(|function| (format!("{function}_{name}"), own.clone()))
        .to_vec();
    wanted.push(("plugin_round".to_owned(), own));
    wanted.push(("main".to_owned(), "reload".to_owned()));
    let found: Vec<(String, String)> = site
        .stack()
        .map(|frame| {
            let text = |text: Option<&str>| text.unwrap_or("?").to_owned();
            (text(frame.function()), text(frame.module()))
        })
        .collect();
    assert!(found.starts_with(&wanted), "{name}: {found:#?}, but {wanted:#?} is true");
    assert_eq!(found.last().map(|(function, _)| function.as_str()), Some("_start"), "{found:#?}");
}

/// Traces the program while it loads each library about twelve times: checks
/// that what claims to be whole is true and that nothing is lost. Gives the
/// libraries that have complete stacks.
fn session(process: &mut Process) -> HashSet<&'static str> {
    let leakctl =
        Leakctl::attach(process.pid(), &["--min-age", "0s", "--top", "100000", "--all-frames"]);
    let before = process.truth();
    wait_for("the libraries to have been loaded in turn", || {
        (process.truth().blocks >= before.blocks + 3 * 12 * 150).then_some(())
    });
    let report = leakctl.interrupt();
    assert_eq!(report.target(process.pid()).lost(), 0);
    complete(&report, process.pid())
}

/// Traces a program that loads and unloads libraries at one address.
fn reload(mapped: bool) {
    let libraries = LIBRARIES.map(|(name, _)| program(&format!("reloaded_{name}.so")));
    let mut command = Command::new(program("reload"));
    command.args(mapped.then_some("mapped")).args(&libraries);
    let mut process = Process::start_ready(command);
    let places: Vec<String> = libraries.iter().map(|_| process.line()).collect();
    assert!(places.iter().all(|place| *place == places[0]), "not at one address: {places:?}");
    // How much of a phase is left when the walker has been told depends on the
    // machine, what a stack says must not. Of one session: the library that is
    // there at its start needs nobody to be told, the others do.
    wait_for("whole stacks of each library in one session", || {
        let found = session(&mut process);
        LIBRARIES.iter().all(|(name, _)| found.contains(name)).then_some(())
    });
    assert_nothing_left(process.pid());
    process.end();
}

/// Check that the stacks of libraries that take each other's place are true or
/// said to be incomplete.
#[test]
fn libraries_at_one_address() {
    reload(false);
}

/// Check the same while code is mapped, moved, made executable and unmapped in
/// part, all the time.
#[test]
fn mappings_in_motion() {
    reload(true);
}
