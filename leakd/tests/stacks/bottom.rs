//! Programs as Debian builds them: their stacks are whole, where they allocate
//! and where they touch memory for the first time.

mod programs;
mod servers;

use std::collections::BTreeMap;

use leakd_common::event::StackEnd;

use crate::support::process::Process;
use crate::support::trace::{Looked, Seen, Trace};

/// A program that waits for work.
struct Scene {
    process: Process,
    /// The process that does the work: nginx's worker, else the program.
    pid: u32,
    work: Work,
    _folder: Option<tempfile::TempDir>,
}

/// What it is given to do.
enum Work {
    /// Read this from stdin, and end.
    Input(Vec<u8>),
    /// Answer what this asks for.
    Requests(Box<dyn FnOnce() + Send>),
}

/// The stacks of one program.
struct Record {
    allocations: Looked,
    page_faults: Looked,
}

/// Traces a program from when it is ready to the end of its work.
fn trace(scene: Scene) -> Record {
    let Scene { mut process, pid, work, _folder } = scene;
    let mut trace = Trace::start();
    trace.watch_page_faults();
    let slot = trace.attach(pid);
    match work {
        Work::Input(text) => {
            let mut stdin = process.take_stdin();
            let writer = std::thread::spawn(move || {
                std::io::Write::write_all(&mut stdin, &text).expect("the program reads its input");
            });
            trace.pump_until("the program to end", || process.has_ended());
            writer.join().expect("the input was read");
        }
        Work::Requests(requests) => {
            let client = std::thread::spawn(requests);
            trace.pump_until("the requests to be answered", || client.is_finished());
            client.join().expect("the requests were answered");
        }
    }
    let record =
        Record { allocations: trace.allocations(slot), page_faults: trace.page_faults(slot) };
    trace.detach(slot);
    assert_eq!(trace.page_fault_sites(slot), 0, "the next target in this slot would have them");
    record
}

/// How many stacks there are, and how many of them are whole.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    whole: u64,
    all: u64,
}

impl Share {
    fn of(stacks: &[Seen]) -> Self {
        stacks.iter().fold(Self::default(), |sum, seen| Self {
            whole: sum.whole + if seen.end().complete() { seen.count } else { 0 },
            all: sum.all + seen.count,
        })
    }

    /// Whether 99 of 100 are whole.
    fn is_enough(self) -> bool {
        self.whole * 100 >= self.all * 99
    }

    fn percent(self) -> f64 {
        100.0 * self.whole as f64 / self.all.max(1) as f64
    }
}

/// Why stacks are not whole, the most frequent first, with one of them each.
fn tell_why(stacks: &[Seen]) {
    let mut causes: BTreeMap<&str, (u64, Vec<u64>)> = BTreeMap::new();
    for seen in stacks.iter().filter(|seen| !seen.end().complete()) {
        let name = match seen.end() {
            StackEnd::NoMapping => "in no known mapping",
            StackEnd::NoTable => "in a mapping without a table",
            StackEnd::NoRow => "where there is no row",
            StackEnd::Unsupported => "at a rule that cannot be followed",
            StackEnd::Unreadable => "where memory cannot be read",
            StackEnd::BadFrame => "at no plausible frame",
            StackEnd::Depth => "too deep",
            _ => "otherwise",
        };
        let (count, _) = causes.entry(name).or_insert_with(|| (0, seen.stack.frames.to_vec()));
        *count += seen.count;
    }
    for (cause, (count, example)) in causes {
        eprintln!("    {count} end {cause}, such as {example:x?}");
    }
}

/// Traces a program that makes so many calls and page faults at least.
fn assert_whole(name: &str, scene: Scene, allocations: u64, page_faults: u64) {
    let record = trace(scene);
    let of_allocations = Share::of(&record.allocations.seen);
    let of_page_faults = Share::of(&record.page_faults.seen);
    for (what, share, stacks) in [
        ("allocations", of_allocations, &record.allocations),
        ("page faults", of_page_faults, &record.page_faults),
    ] {
        let (percent, Share { whole, all }) = (share.percent(), share);
        let (sites, unknown) = (stacks.seen.len(), stacks.unknown);
        eprintln!(
            "{name:12} {what} {percent:7.3} % whole: {whole} of {all}, {sites} call sites; \
             {unknown} not announced"
        );
        tell_why(&stacks.seen);
        assert!(unknown * 20 <= all, "{name}: of {unknown} {what} too many are not known");
    }
    assert!(of_allocations.all >= allocations, "{name}: {of_allocations:?}");
    assert!(of_page_faults.all >= page_faults, "{name}: {of_page_faults:?}");
    assert!(of_allocations.is_enough(), "{name}: {of_allocations:?}");
    assert!(of_page_faults.is_enough(), "{name}: page faults: {of_page_faults:?}");
}

/// Check python3.
#[test]
fn python() {
    assert_whole("python3", programs::python(), 100_000, 500);
}

/// Check perl.
#[test]
fn perl() {
    assert_whole("perl", programs::perl(), 50_000, 500);
}

/// Check cc1plus, the compiler proper behind g++.
#[test]
fn cc1plus() {
    assert_whole("cc1plus", programs::cc1plus(), 10_000, 1_000);
}

/// Check sqlite3.
#[test]
fn sqlite() {
    assert_whole("sqlite3", programs::sqlite(), 10_000, 500);
}

/// Check postgres.
#[test]
fn postgres() {
    assert_whole("postgres", programs::postgres(), 1_000, 1_000);
}

/// Check redis-server, on jemalloc.
#[test]
fn redis() {
    assert_whole("redis-server", servers::redis(), 10_000, 200);
}

/// Check nginx's worker.
#[test]
fn nginx() {
    assert_whole("nginx", servers::nginx(), 5_000, 1_000);
}
