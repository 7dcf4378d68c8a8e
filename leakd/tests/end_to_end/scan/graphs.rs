//! Classes are those of valgrind, block by block.

use super::{blocks, document, scan};
use crate::support::{invocation::leakctl, leakd::Leakd, process::Process, programs::program};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{collections::BTreeMap, process::Command};

/// Blocks by the function that made them and by class.
type Classes = BTreeMap<(String, &'static str), u64>;

const CLASSES: [(&str, &str); 4] = [
    ("definitely_lost", "definitely lost"),
    ("indirectly_lost", "indirectly lost"),
    ("possibly_lost", "possibly lost"),
    ("still_reachable", "still reachable"),
];

/// Whether a function of the program makes a block of the graphs.
fn is_maker(function: &str) -> bool {
    ["reachable_", "definite_", "indirect_", "possible_", "lost_"]
        .iter()
        .any(|begin| function.starts_with(begin))
}

/// What leakctl says.
fn by_leakctl(document: &Value) -> Classes {
    let mut classes = Classes::new();
    for site in document["sites"].as_array().expect("sites") {
        let stack = site["stack"].as_array().expect("a stack");
        let functions = stack.iter().filter_map(|frame| frame["function"].as_str());
        let Some(maker) = functions.into_iter().find(|function| is_maker(function)) else {
            continue;
        };
        for (field, class) in CLASSES {
            if blocks(site, field) > 0 {
                *classes.entry((maker.to_owned(), class)).or_default() += blocks(site, field);
            }
        }
    }
    classes
}

/// What valgrind says.
fn by_valgrind() -> Classes {
    let output = Command::new("valgrind")
        .args(["--leak-check=full", "--show-leak-kinds=all", "--leak-check-heuristics=none"])
        .arg(program("graphs"))
        .env("ROUNDS", "1")
        .output()
        .expect("valgrind is installed: apt-get install valgrind");
    let text = String::from_utf8_lossy(&output.stderr);
    let mut classes = Classes::new();
    let mut record: Option<(u64, &'static str)> = None;
    for line in text.lines() {
        if let Some((count, rest)) = line.split_once(" blocks are ") {
            let count = count.rsplit(' ').next().and_then(|count| count.parse().ok());
            let class = CLASSES.iter().find(|(_, class)| rest.starts_with(class));
            record = count.zip(class.map(|(_, class)| *class));
        }
        let function = line.split_once(": ").and_then(|(_, rest)| rest.split(' ').next());
        let maker = function.filter(|function| is_maker(function));
        if let Some((maker, (count, class))) = maker.zip(record) {
            *classes.entry((maker.to_owned(), class)).or_default() += count;
            record = None;
        }
    }
    classes
}

/// What the names of the functions say, and how many blocks each makes.
fn by_name(classes: &Classes) {
    let total: u64 = classes.values().sum();
    assert_eq!(total, 30, "{classes:#?}");
    for ((maker, class), count) in classes {
        let expected = match maker.split('_').next() {
            Some("reachable") => "still reachable",
            Some("definite") => "definitely lost",
            Some("indirect") => "indirectly lost",
            Some("possible") => "possibly lost",
            // Of the three blocks of a ring one leads.
            _ if *count == 1 => "definitely lost",
            _ => "indirectly lost",
        };
        assert_eq!(*class, expected, "{maker}");
    }
}

/// Check that lists, trees, cycles, pointers to the inside, and blocks held only
/// from variables, other blocks, mapped memory, thread-local variables and stacks,
/// this one's and another thread's, have the class that valgrind gives each: while
/// the process runs, and stopped.
#[test]
fn classes_are_those_of_valgrind() {
    let expected = by_valgrind();
    by_name(&expected);
    for arguments in [&[][..], &["--stop", "--max-pause", "60s"]] {
        let mut process = Process::start_ready(Command::new(program("graphs")));
        let document = document(&scan(&mut process, arguments), 1);
        assert_eq!(by_leakctl(&document), expected, "{arguments:?}: {document:#}");
        assert_eq!(blocks(&document["total"], "definitely_lost"), 6);
        process.end();
    }
}

/// Check that what LeakSanitizer calls lost, directly and indirectly, is what
/// leakctl does: but for what only mapped memory holds, where that does not look.
#[test]
fn lost_is_what_the_sanitizer_says() {
    let output = Command::new(program("graphs_with_sanitizer"))
        .env("ROUNDS", "1")
        .output()
        .expect("our own program");
    let text = String::from_utf8_lossy(&output.stderr);
    let mut found: BTreeMap<String, bool> = BTreeMap::new();
    let mut direct = false;
    for line in text.lines() {
        if line.contains(" leak of ") {
            direct = line.starts_with("Direct");
        }
        let function = line.split_once(" in ").and_then(|(_, rest)| rest.split(' ').next());
        if let Some(maker) = function.filter(|function| is_maker(function)) {
            *found.entry(maker.to_owned()).or_default() |= direct;
        }
    }
    found.remove("reachable_mapped");
    let mut process = Process::start_ready(Command::new(program("graphs")));
    let document = document(&scan(&mut process, &[]), 1);
    let mut expected: BTreeMap<String, bool> = BTreeMap::new();
    for ((maker, class), _) in by_leakctl(&document) {
        match class {
            "definitely lost" => *expected.entry(maker).or_default() |= true,
            "indirectly lost" => *expected.entry(maker).or_default() |= false,
            _ => {}
        }
    }
    // Of a ring it calls all indirectly lost.
    for classes in [&mut found, &mut expected] {
        assert!(classes.remove("lost_ring").is_some());
    }
    assert_eq!(found, expected, "{text}");
    process.end();
}

/// Check that the daemon scans what it has under trace, by a client that may, and
/// that the process is under trace afterwards as it was before.
#[test]
fn through_the_daemon() {
    // Whose probes are never taken out because a slow machine's budget is used up.
    let daemon =
        Leakd::start("mode = \"off\"\n[budget]\ntarget_percent = 100\nmachine_percent = 100");
    let mut process = Process::start_ready(Command::new(program("graphs")));
    let pid = process.pid().to_string();
    let refused = daemon.ask(serde_json::json!({"ask": "scan", "pid": process.pid()}));
    assert_eq!(refused["code"], "not_found", "{refused}");
    let attached =
        daemon.ask(serde_json::json!({"ask": "attach", "pid": process.pid(), "sample_bytes": 0}));
    assert_eq!(attached["answer"], "attached", "{attached}");
    process.go();
    assert_eq!(process.line(), "made");
    let socket = daemon.socket();
    let socket = socket.to_str().expect("UTF-8");
    for arguments in [&["--json"][..], &["--json", "--stop"]] {
        let mut all = vec!["scan", &pid, "--socket", socket];
        all.extend(arguments);
        let document = document(&leakctl(all), 1);
        by_name(&by_leakctl(&document));
    }
    let text = leakctl(["scan", &pid, "--socket", socket]);
    assert!(text.stdout.contains("definitely lost"), "{text:?}");
    assert!(text.stdout.lines().all(|line| line.chars().count() <= 80), "{text:?}");
    let view = daemon.process(process.pid()).expect("it is watched");
    assert_eq!(view["trace"]["active"], true, "{view}");
    process.end();
    daemon.end(Signal::SIGTERM);
}
