//! Verdicts on programs of which it is known whether they leak: some of those that
//! `cargo xtask bench verdicts` runs all of.

use crate::{
    host::is_emulated,
    support::{
        invocation::Leakctl,
        probes::assert_nothing_left,
        process::Process,
        programs::{program, source_folder},
        report::Report,
    },
};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::process::Command;

/// What a verdict takes at least, and a little more.
const WATCHED: &str = "66s";

const PROGRAMS: [&str; 7] = [
    "leak_plainly",
    "leak_on_an_error_path",
    "leak_per_connection",
    "last_entries",
    "startup_tables",
    "full_before",
    "traffic",
];

/// What is known of a program, from labels.json.
fn label(labels: &Value, name: &str) -> Value {
    let mut of_c = labels.as_array().expect("a list").iter();
    of_c.find(|one| one["language"] == "c" && one["name"] == name).expect("a label").clone()
}

/// Check that of seven programs those that leak, and no others, are told, with the
/// function and the reason; in the text, too.
#[test]
fn leaks_and_no_others() {
    let folder = source_folder().join("behaviours");
    let labels = std::fs::read_to_string(folder.join("labels.json")).expect("the labels");
    let labels: Value = serde_json::from_str(&labels).expect("JSON");
    let running = PROGRAMS.map(|name| {
        let mut command = Command::new(program("behaviours"));
        command.arg(name);
        (label(&labels, name), Process::start_ready(command))
    });
    let watch = || {
        let pids = running.iter().map(|(_, process)| process.pid().to_string());
        let words = ["attach", "--no-daemon", "--json", "--for", WATCHED].map(str::to_owned);
        Leakctl::start(words.into_iter().chain(pids)).finish()
    };
    let is_undetermined = |report: &Report, process: &Process| {
        report.target(process.pid()).0["verdict"]["word"] == "undetermined"
    };
    let mut report = watch();
    // Where the programs starve as they start, they have piled work up and then free
    // what is from before the trace. That nothing can be told is right; later it can.
    if is_emulated()
        && running
            .iter()
            .any(|(label, process)| label["leaks"] == true && is_undetermined(&report, process))
    {
        report = watch();
    }
    for (label, process) in &running {
        let target = report.target(process.pid());
        let verdict = &target.0["verdict"];
        let leaks = label["leaks"].as_bool().expect("a label says so");
        assert_eq!(verdict["word"] == "leak", leaks, "{label}: {:#}", target.0);
        assert!(!verdict["evidence"].as_str().expect("a reason").is_empty(), "{verdict}");
        for site in target.sites() {
            let told = &site.0["verdict"];
            assert_eq!(told["confidence"].is_string(), told["word"] == "leak", "{told}");
        }
        if leaks {
            let function = label["function"].as_str().expect("its function");
            let first = target.first_site(function);
            assert_eq!(first.0["verdict"]["word"], "leak", "{:#}", first.0);
            assert!(first.0["verdict"]["growth"]["low"].as_f64() > Some(0.0), "{:#}", first.0);
        }
        assert_nothing_left(process.pid());
        process.signal(Signal::SIGKILL);
    }
}
