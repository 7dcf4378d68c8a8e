//! Programs that leak and programs that do not, side by side: the daemon is to
//! tell the first, with their lines, and none of the others.

use crate::support::{leakd::Leakd, process::Process, programs::program};
use nix::sys::signal::Signal;
use std::{collections::BTreeMap, process::Command, time::Duration};

/// Each holds more and more in the function of its name.
const LEAKING: [&str; 10] = [
    "leak_steadily",
    "leak_large",
    "leak_in_lumps",
    "leak_on_errors",
    "leak_by_list",
    "leak_by_calloc",
    "leak_by_growing",
    "leak_beside_waves",
    "leak_faster",
    "leak_in_a_thread",
];

/// None of these does, in the end.
const HONEST: [&str; 10] = [
    "flat",
    "traffic",
    "warm_up",
    "cache",
    "sawtooth",
    "queue",
    "sessions",
    "one_step",
    "bursts",
    "too_slowly",
];

/// Longer than this it takes only where a leak is not found at all.
const LONGEST: Duration = Duration::from_secs(1200);

/// Whether a process is held to grow, or to leak.
fn is_told(view: &serde_json::Value) -> bool {
    view["verdict"] == "growing" || view["verdict"] == "leak"
}

fn start(pattern: &str) -> Process {
    let mut command = Command::new(program("patterns"));
    command.arg(pattern);
    Process::start_ready(command)
}

/// Check that each of ten leaks is found and its line named, and that none of
/// ten other programs is ever held to grow.
#[test]
fn leaks_and_no_others() {
    let daemon = Leakd::start(
        "[watch]\nstartup = '0s'\ninterval = '2s'\n[trace]\nmax_targets = 20\n\
         [budget]\nmachine_percent = 50\n[include]\nexe = ['*/patterns']",
    );
    let leaking: Vec<(&str, Process)> = LEAKING.map(|name| (name, start(name))).into();
    let honest: Vec<(&str, Process)> = HONEST.map(|name| (name, start(name))).into();
    let began = std::time::Instant::now();
    let mut named: BTreeMap<&str, u64> = BTreeMap::new();
    while named.len() < LEAKING.len() {
        std::thread::sleep(Duration::from_secs(2));
        for (name, process) in &leaking {
            let view = daemon.wait_watched(process.pid());
            let place = view["trace"]["evidence"]["sites"][0]["place"].as_str().unwrap_or("");
            if place.contains(name) && place.contains("patterns.c:") {
                assert!(is_told(&view), "{name}: {view}");
                named.entry(name).or_insert(began.elapsed().as_secs());
            }
        }
        for (name, process) in &honest {
            let view = daemon.wait_watched(process.pid());
            assert!(!is_told(&view), "{name}: {view}");
            assert!(view["trace"]["evidence"].is_null(), "{name}: {view}");
        }
        assert!(began.elapsed() < LONGEST, "only {named:?} were named");
    }
    eprintln!("named after seconds: {named:?}");
    for (_, process) in leaking.iter().chain(&honest) {
        process.signal(Signal::SIGKILL);
    }
    daemon.end(Signal::SIGTERM);
}
