//! Programs that do nothing but move their pointers about: none of their blocks is
//! ever called lost.

use crate::{
    host::scaled,
    support::{process::Process, programs::program},
};
use leakd::{
    engine::{Settings, target::SeenFrom},
    scan::graph::Reach,
    trace::Trace,
};
use std::process::Command;

/// Blocks that each program moves.
const BLOCKS: usize = 64;

/// Scans a program again and again; gives in how many scans one look did not do.
async fn scan_often(trace: &mut Trace, way: &str, times: u64) -> u64 {
    let mut command = Command::new(program("mover"));
    command.arg(way);
    let mut process = Process::start_ready(command);
    let pid = process.pid() as u32;
    let slot = trace.attach(pid, SeenFrom::Attach).expect("it can be traced");
    process.go();
    assert_eq!(process.line(), "made");
    let target = trace.engine().target(slot).expect("a target");
    let source = trace.engine().scan_source(target).expect("descriptors");
    let mut missed = 0;
    for number in 0..times {
        let mut first = 0;
        let outcome = source
            .scan(None, &mut |round, lost| {
                if round == 1 {
                    first = lost;
                }
            })
            .unwrap_or_else(|error| panic!("{way}: {error}"));
        missed += u64::from(first > 0);
        let lost: Vec<_> =
            outcome.blocks.iter().filter(|(_, reach)| *reach < Reach::Possibly).collect();
        assert!(lost.is_empty(), "{way}, scan {number}: {lost:x?}, {:?}", outcome.how);
        let expected = if way == "hand" { 1 } else { BLOCKS };
        assert!(outcome.blocks.len() >= expected, "{way}: {:?}", outcome.how);
        assert!(!outcome.how.threads_stopped, "{way}: {:?}", outcome.how);
        assert_eq!(outcome.how.unread_threads, 0, "{way}: {:?}", outcome.how);
    }
    drop(source);
    process.end();
    missed
}

/// Check that of blocks that can be reached all the time none is called lost in
/// 100 scans, however the program moves its pointers: between two slots, among many
/// pages, from thread to thread, through a list, upward, or mostly in a register.
/// That a single look would not do is seen as well: else this would prove nothing.
#[tokio::test(flavor = "multi_thread")]
async fn pointers_in_motion() {
    crate::support::require_machine();
    let times = scaled(100, 5);
    let engine = leakd::engine::Engine::start(Settings::default()).expect("an engine");
    let mut trace = Trace::new(engine);
    let mut missed = 0;
    for way in ["swap", "shuffle", "hand", "rotate", "chase", "rare"] {
        let of_this = scan_often(&mut trace, way, times).await;
        eprintln!("{way}: one look missed something in {of_this} of {times} scans");
        missed += of_this;
    }
    assert!(missed > 0, "one look always did: the programs do not move enough");
}
