//! Code that is replaced while it is walked: what is announced of a call site is the
//! stack that its key was made of.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use leakd_common::event::StackEnd;

use crate::support::process::{PATIENCE, Process};
use crate::support::programs::compile;
use crate::support::trace::{Seen, Trace};

/// In programs/replaced.c: frames of a whole stack, at least.
const LEVELS: usize = 15;
/// Between two looks at what is mapped: for others on a small machine.
const PAUSE: Duration = Duration::from_micros(100);

/// Times that the program is run, at most, until a table was missing while it called:
/// on a busy machine, leakd has the processor or the program, and seldom both.
const ROUNDS: usize = 20;

/// Runs the program under trace, and checks its call sites; gives how many calls met a
/// place without its table.
fn round(trace: &mut Trace, program: &Path, plugins: &[PathBuf]) -> u64 {
    let mut command = Command::new(program);
    command.args(plugins);
    let mut process = Process::start_ready(command);
    let slot = trace.attach(process.pid());
    process.write(b"g");
    let mut looks = 0;
    let begun = Instant::now();
    while !process.has_said(b'd') {
        trace.refresh(slot);
        looks += 1;
        std::thread::sleep(PAUSE);
        assert!(begun.elapsed() < PATIENCE, "the program does not come to its end");
    }
    let looked = trace.allocations(slot);
    trace.detach(slot);
    let is_whole = |seen: &&Seen| seen.stack.frames.len() > LEVELS;
    let (whole, cut): (Vec<&Seen>, Vec<&Seen>) = looked.seen.iter().partition(is_whole);
    let mut keys: BTreeMap<&[u64], BTreeSet<u64>> = BTreeMap::new();
    for seen in &cut {
        keys.entry(&seen.stack.frames).or_default().insert(seen.key);
    }
    let calls: u64 = cut.iter().map(|seen| seen.count).sum();
    eprintln!("{looks} looks, {} whole stacks, {calls} that are cut off", whole.len());
    assert!(whole.len() > 100, "this shows nothing");
    // Each way is gone once: nothing else stands at a whole stack.
    assert!(whole.iter().all(|seen| seen.count == 1), "{whole:x?}");
    assert!(keys.values().all(|keys| keys.len() == 1), "{keys:x?}");
    assert!(cut.iter().all(|seen| seen.end() == StackEnd::Stale), "{cut:x?}");
    calls
}

/// Check that a stack which ends where a table is missing stands for one call site,
/// although tables come and go between a site's first walk, which makes its key, and
/// the one that announces it; and that it is said not to be known which file's code the
/// calls are in, since they are in both.
#[test]
fn one_key_for_each_stack() {
    let plugins = [(); 2].map(|()| compile("replaced_plugin.c", &["-shared", "-fPIC"]));
    let program = compile("replaced.c", &["-ldl"]);
    let mut trace = Trace::start();
    let shown = (0..ROUNDS).any(|_| round(&mut trace, &program, &plugins) > 0);
    assert!(shown, "in {ROUNDS} rounds, no table was missing while the program called");
}
