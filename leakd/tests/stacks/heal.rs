//! Tables that come late: the first stacks end where they are missing, the
//! later ones are whole.

use std::process::Command;
use std::time::Duration;

use leakd::engine::Settings;
use leakd_common::event::StackEnd;

use crate::support::process::Process;
use crate::support::programs::compile;
use crate::support::trace::{Looked, Trace};

/// Calls with a stack that ends like this.
fn ending(looked: &Looked, end: StackEnd) -> u64 {
    looked.seen.iter().filter(|seen| seen.end() == end).map(|seen| seen.count).sum()
}

/// Check that an attach that waits for no table is answered with all mappings
/// without one; that no stack from then passes for whole unless it is; and that
/// stacks are whole when the tables have come.
#[test]
fn tables_come_later() {
    // Static: the one file that all stacks lead through.
    let program = compile("late.c", &["-static"]);
    let mut process = Process::start_ready(Command::new(program));
    let settings = Settings { tables_wait: Duration::ZERO, ..Settings::default() };
    let mut trace = Trace::with(settings);
    let slot = trace.attach(process.pid());
    let without = trace.target(slot).without_table();
    assert!(!without.is_empty(), "nothing was waited for");
    assert!(without.values().all(|why| why == "it is still being made"), "{without:?}");
    // Nobody puts tables in their places meanwhile.
    process.write(b"g");
    while !process.has_said(b'd') {
        std::thread::sleep(Duration::from_millis(1));
    }
    let early = trace.allocations(slot);
    assert_eq!(early.seen.iter().map(|seen| seen.count).sum::<u64>(), 1);
    assert_eq!(ending(&early, StackEnd::Bottom), 0, "no table leads there");

    trace.wait_for(|trace| trace.target(slot).without_table().is_empty().then_some(()));
    process.write(b"g");
    trace.pump_until("the program to do its work again", || process.has_said(b'e'));
    let late = trace.allocations(slot);
    assert_eq!(late.seen.iter().map(|seen| seen.count).sum::<u64>(), 2);
    assert_eq!(ending(&late, StackEnd::Bottom), 1);
}
