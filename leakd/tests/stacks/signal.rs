//! What a signal interrupted is an instruction, not a return address. Where it
//! is the first one of its function, the instruction before it belongs to
//! another.

use std::process::Command;

use leakd::symbol::{CodeAddress, Lookup, Symbolizer};

use crate::support::process::{PATIENCE, Process};
use crate::support::programs::compile;
use crate::support::trace::Trace;

/// The functions of a stack, innermost first, as a report names them.
fn names(symbolizer: &Symbolizer, code: &[CodeAddress]) -> Vec<String> {
    let frames = symbolizer.resolve(code, PATIENCE);
    let name = |frames: &Vec<leakd::symbol::Frame>| {
        frames.first().and_then(|frame| frame.function.clone()).unwrap_or_default()
    };
    frames.iter().map(name).collect()
}

/// Check the stacks of handlers: the function that was interrupted is named by
/// its own first instruction, and so is the kernel's trampoline; all others by
/// the calls in front of the return addresses.
#[test]
fn interrupted_functions_have_their_own_names() {
    // Static, so that there are names for the trampoline and for raise, too.
    let program = compile("hard.c", &["-static"]);
    let mut command = Command::new(program);
    command.args(["-", "signals"]);
    let mut process = Process::start_ready(command);
    let mut trace = Trace::start();
    let slot = trace.attach(process.pid());
    process.write(b"g");
    trace.pump_until("the program to do its work", || process.has_said(b'd'));
    let symbolizer = Symbolizer::start();
    let mut faults = 0;
    let mut nested = 0;
    for seen in trace.allocations(slot).seen {
        let target = trace.target(slot);
        let lookups: Vec<Lookup> = seen.stack.addresses().map(|(_, lookup)| lookup).collect();
        let code: Vec<CodeAddress> = target.code_addresses(seen.stack.site).collect();
        let names = names(&symbolizer, &code);
        let interrupted = |name: &String| name == "__restore_rt";
        let signals = names.iter().filter(|name| interrupted(name)).count();
        let instructions = lookups.iter().filter(|lookup| **lookup == Lookup::Instruction);
        // The trampoline and what it returns to.
        assert_eq!(instructions.count(), 2 * signals, "{names:?}");
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let fault =
            ["take", "handle_deeper", "handle", "__restore_rt", "touch", "fault", "signals"];
        if names.starts_with(&fault) {
            faults += seen.count;
        }
        nested += u64::from(signals == 2);
    }
    assert_eq!(faults, 2, "touch() faults at its first instruction, on either stack");
    assert_eq!(nested, 3, "a handler raises another signal, on either stack");
}
