//! Tests of the tests: what the programs say of themselves is what an
//! independent witness saw, and probes in a process do show.

use crate::host::scaled;
use crate::support::{
    links::{links_on, uprobe_on},
    probes::{assert_nothing_left, changed_code, wait_until_nothing_left},
    process::{Process, Truth},
    programs::program,
    report::bare_name,
    witness::{Testimony, Witness},
};
use std::{fs::File, os::unix::fs::FileExt, process::Command};

/// For how many rounds programs run under the witness.
fn rounds() -> u64 {
    scaled(300, 15)
}

/// Runs a program for some rounds under the witness: its last word and what
/// the witness saw.
fn witnessed(name: &str, arguments: &[&str]) -> (serde_json::Value, Testimony) {
    let mut command = Command::new(program(name));
    command.args(arguments).env("ROUNDS", rounds().to_string());
    let witness = Witness::called_by(&mut command, 0..=usize::MAX >> 1);
    let mut process = Process::start(command);
    let pid = process.pid();
    process.end();
    let last = process.rest().lines().last().unwrap_or_default().to_owned();
    let said = serde_json::from_str(&last).unwrap_or(serde_json::Value::Null);
    (said, witness.testimony(pid))
}

/// Blocks and bytes outstanding where `function` is the `level`-th frame.
fn held_in(testimony: &Testimony, function: &str, level: usize) -> (u64, u64) {
    let mangled = format!("{}{function}", function.len());
    testimony
        .sites
        .iter()
        .filter(|site| site.blocks > 0)
        .filter(|site| {
            site.stack.get(level).is_some_and(|frame| {
                let found = frame.function_by_addr2line();
                found == function || found.contains(&mangled)
            })
        })
        .fold((0, 0), |sum, site| (sum.0 + site.blocks, sum.1 + site.bytes))
}

/// Check that the leaking programs leak what they say, where they say, and
/// nothing else after their start.
#[test]
fn programs_leak_what_they_say() {
    // The level: C++'s blocks come from operator new, Rust's are inlined.
    for (name, function, level) in [
        ("orders", "leak_orders", 0),
        ("orders_no_debug", "leak_orders", 0),
        ("orders_cpp", "leak_orders", 1),
        ("threads", "leak_orders", 0),
    ] {
        let (said, testimony) = witnessed(name, &[]);
        let truth = Truth::from(&said);
        assert_eq!(truth.blocks, rounds(), "{name}");
        assert_eq!(held_in(&testimony, function, level), (truth.blocks, truth.bytes), "{name}");
    }
    for (name, arguments) in [("unmap", vec![]), ("mapped", vec!["/proc/self/exe"])] {
        let (said, testimony) = witnessed(name, &arguments);
        let truth = Truth::from(&said);
        assert_eq!((testimony.blocks, testimony.bytes), (truth.blocks, truth.bytes), "{name}");
    }
    let (said, testimony) = witnessed("orders_no_debug", &[]);
    let truth = Truth::from(&said);
    assert_eq!((testimony.blocks, testimony.bytes), (truth.blocks, truth.bytes), "nothing else");
}

/// Check that the Rust program leaks one box of 264 bytes a round and that
/// the witness sees one block a round of it, from one place.
#[test]
fn rust_program_leaks_what_it_says() {
    let (said, testimony) = witnessed("orders_rs", &[]);
    let truth = Truth::from(&said);
    let leak: Vec<_> = testimony.sites.iter().filter(|site| site.blocks == rounds()).collect();
    assert_eq!(leak.len(), 1, "{:?}", testimony.sites);
    assert_eq!((leak[0].blocks, leak[0].bytes), (truth.blocks, truth.bytes));
}

/// Check that the counting programs count right, function by function.
#[test]
fn programs_count_right() {
    let (said, testimony) = witnessed("outcomes", &[]);
    for (function, expected) in said["sites"].as_object().expect("sites") {
        let level = usize::from(function == "leak_by_strdup");
        let held = held_in(&testimony, function, level);
        assert_eq!(serde_json::json!([held.0, held.1]), *expected, "{function}");
    }
    assert_eq!(said["leaked_blocks"], testimony.blocks);
    assert_eq!(said["leaked_bytes"], testimony.bytes);

    let blocks = scaled(1_000_000, 20_000);
    let mut command = Command::new(program("exactness"));
    command.env("ROUNDS", "1").env("BLOCKS", blocks.to_string());
    // No stacks, as no block is that large: of a million they would take long.
    let witness = Witness::called_by(&mut command, usize::MAX..=usize::MAX);
    let mut process = Process::start(command);
    let pid = process.pid();
    process.end();
    let said: serde_json::Value =
        serde_json::from_str(process.rest().lines().last().unwrap_or_default()).expect("JSON");
    let testimony = witness.testimony(pid);
    for (function, expected) in said["sites"].as_object().expect("sites") {
        let held = held_in(&testimony, function, 0);
        assert_eq!(serde_json::json!([held.0, held.1]), *expected, "{function}");
    }
    let allocated: u64 = testimony
        .sites
        .iter()
        .filter(|site| site.stack[0].function_by_addr2line().starts_with("take_by"))
        .map(|site| site.allocated_blocks)
        .sum();
    // Every fifth block is reallocated once.
    assert_eq!(allocated, blocks + blocks / 5);
}

/// Check that the short-lived program makes 1,000 blocks and frees 993.
#[test]
fn short_program_counts_right() {
    let (_, testimony) = witnessed("short", &[]);
    assert_eq!((testimony.allocations, testimony.frees), (1000, 993));
    assert_eq!((testimony.blocks, testimony.bytes), (7, 700));
}

/// Check that a changed byte of code shows, with its place, and that it is
/// gone when it was put back.
#[test]
fn changed_code_shows() {
    let mut process = Process::start_ready(Command::new(program("orders_no_debug")));
    let pid = process.pid();
    assert_nothing_left(pid);
    // The last byte of libc's code is padding that nobody runs.
    let libc = crate::support::mappings::executable_mappings(pid)
        .into_iter()
        .find(|mapping| mapping.path.contains("libc"))
        .expect("the program runs on a shared libc");
    let memory = File::options()
        .read(true)
        .write(true)
        .open(format!("/proc/{pid}/mem"))
        .expect("root may write to a process");
    let place = libc.end - 1;
    let mut before = [0];
    memory.read_exact_at(&mut before, place).expect("it is mapped");
    memory.write_all_at(&[0xCC], place).expect("root may write to a process");
    let changes = changed_code(pid);
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert_eq!(changes[0].offset, libc.offset + (libc.end - libc.start) - 1);
    assert_eq!((changes[0].in_file, changes[0].in_memory), (before[0], 0xCC));
    assert_eq!(changes[0].path, libc.path);
    memory.write_all_at(&before, place).expect("root may write to a process");
    assert_nothing_left(pid);
    process.end();
}

/// Check that a real uprobe shows in the target's code and, if the kernel has
/// such links, in its list of links, not in a bystander's, and that both are gone with it.
#[test]
fn a_real_uprobe_shows() {
    let mut target = Process::start_ready(Command::new(program("orders_no_debug")));
    let mut bystander = Process::start_ready(Command::new(program("orders_no_debug")));
    let place = libc::malloc as *const () as u64;
    let own = i32::try_from(std::process::id()).expect("a pid");
    let libc = crate::support::mappings::executable_mappings(own)
        .into_iter()
        .find(|mapping| (mapping.start..mapping.end).contains(&place))
        .expect("the tests run on a shared libc");
    let offset = place - libc.start + libc.offset;
    let (probe, links) = uprobe_on(target.pid(), &libc.path, offset);
    let changes = changed_code(target.pid());
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert_eq!((changes[0].offset, changes[0].in_memory), (offset, 0xCC));
    assert_eq!(links_on(target.pid()), links);
    assert_nothing_left(bystander.pid());
    drop(probe);
    wait_until_nothing_left(target.pid());
    target.end();
    bystander.end();
}

/// Check that names of functions are compared without their decoration.
#[test]
fn bare_names() {
    for (decorated, bare) in [
        ("leak_orders", "leak_orders"),
        ("leak_orders.constprop.0", "leak_orders"),
        ("shop::leak_orders(unsigned int)", "leak_orders"),
        ("orders::leak_orders::h0123456789abcdef", "leak_orders"),
        ("orders::leak_orders", "leak_orders"),
        ("std::vec<int>::push(int)", "vec"),
        ("", ""),
    ] {
        assert_eq!(bare_name(decorated), bare, "{decorated}");
    }
}
