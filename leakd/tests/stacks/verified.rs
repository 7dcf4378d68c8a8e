//! What the programs cost the verifier, against what is on record. The
//! verifier gives up at a million instructions, and small changes of the source
//! can multiply them.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::path::Path;

use leakd::bpf::features::{Needs, ProbeMethod, UprobePrograms, load_object};
use leakd::bpf::program::{ProgramLoader, UprobeAttach};
use leakd::bpf::program_info;
use leakd::btf::Btf;
use leakd::kernel;
use leakd::kernel::object::KernelObject;
use leakd::kernel::symbols::Symbols;

/// Room for frees makes no difference to the verifier.
const NEEDS: Needs = Needs { check_frees: false, follow_forks: true };

/// By release family, by program.
type Record = BTreeMap<String, BTreeMap<String, u32>>;

const RECORDED: &str = include_str!("verified_instructions.json");
const PLACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stacks/verified_instructions.json");
/// Set: record instead of compare.
const VARIABLE: &str = "LEAKD_RECORD";
const COMMAND: &str = "LEAKD_RECORD=1 cargo xtask test verified";

/// "6.18" of "6.18.44-some".
fn family() -> String {
    let release = leakd::preflight::release();
    let numbers: Vec<&str> = release.split(['.', '-']).take(2).collect();
    numbers.join(".")
}

/// Every program that this kernel can load.
fn counts() -> BTreeMap<String, u32> {
    let mut object = load_object(NEEDS).unwrap_or_else(|error| panic!("{error}"));
    object
        .attach_tracepoint("page_fault_user", "page_fault_user")
        .unwrap_or_else(|error| panic!("{error}"));
    let method = {
        // In an object of its own: program arrays are bound by the first load.
        let object = load_object(NEEDS).unwrap_or_else(|error| panic!("{error}"));
        UprobePrograms::load(&object, None, false).unwrap_or_else(|error| panic!("{error}")).method
    };
    let loader = ProgramLoader::new(&object).unwrap_or_else(|error| panic!("{error}"));
    let many = if method == ProbeMethod::Perf { UprobeAttach::Perf } else { UprobeAttach::Multi };
    let mut uprobes = vec![
        ("allocate_entry", many),
        ("allocate_return", many),
        ("free_checked", many),
        ("free_entry", many),
        ("realloc_checked", many),
        ("floor", many),
    ];
    if method == ProbeMethod::Session {
        uprobes.push(("allocate_session", UprobeAttach::Session));
    }
    let count = |fd: BorrowedFd<'_>| {
        program_info::verified_instructions(fd).expect("bpf(2)").expect("a kernel from 5.16 on")
    };
    let mut counts = BTreeMap::new();
    for (name, attach) in uprobes {
        let program = loader.load(name, attach).unwrap_or_else(|error| panic!("{error}"));
        counts.insert(name.to_owned(), count(program.fd()));
    }
    for name in ["process_fork", "process_exec", "process_exit", "page_fault_user"] {
        let program = object.tracepoint(name).unwrap_or_else(|error| panic!("{error}"));
        counts.insert(name.to_owned(), count(program));
    }
    counts.extend(kernel_counts());
    counts
}

/// The programs of the other object, for the kernel's memory.
fn kernel_counts() -> BTreeMap<String, u32> {
    let btf = Btf::of_kernel().expect("the kernel's types");
    let symbols = Symbols::read().expect("the kernel's symbols");
    let settings = kernel::Settings { quota: 1024, ..kernel::Settings::default() };
    let object = KernelObject::load(&settings, &btf, &symbols);
    let counts = object.and_then(|mut object| object.load_all(&symbols));
    let counts = counts.unwrap_or_else(|error| panic!("{error}"));
    counts.into_iter().map(|(name, count)| (format!("kernel/{name}"), count)).collect()
}

/// Check that no program takes more than 20 % more instructions than on record
/// for this kernel's release family.
#[test]
fn programs_do_not_grow() {
    assert!(nix::unistd::geteuid().is_root(), "this loads BPF programs: run it as root");
    let mut record: Record = serde_json::from_str(RECORDED).expect("a valid record");
    let (family, counts) = (family(), counts());
    eprintln!("Linux {family}: {counts:#?}");
    if std::env::var_os(VARIABLE).is_some() {
        record.insert(family, counts);
        let text = serde_json::to_string_pretty(&record).expect("plain data") + "\n";
        // Where the tests run without their source, as in a virtual machine,
        // the record can be taken from here.
        eprintln!("{text}");
        if Path::new(PLACE).exists() {
            std::fs::write(PLACE, text).expect("cannot write the record");
        }
        return;
    }
    let Some(recorded) = record.get(&family) else {
        panic!("Linux {family} is not in {PLACE}: look at the counts above, then run {COMMAND}");
    };
    let names: Vec<_> = counts.keys().collect();
    let known: Vec<_> = recorded.keys().collect();
    assert_eq!(names, known, "other programs than on record: {COMMAND}");
    for (name, count) in &counts {
        let before = recorded[name];
        assert!(
            u64::from(*count) * 5 <= u64::from(before) * 6,
            "{name}: {count} instructions verified, {before} on record. If that is well: {COMMAND}"
        );
    }
}
