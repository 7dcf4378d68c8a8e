//! Discovery in the allocators of this machine and in compiled programs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use leakd_common::cookie::{Arguments, Function};

use super::*;
use crate::elf::{ElfObject, test_program::TestProgram};

pub(super) const GLIBC: &str = "/lib/x86_64-linux-gnu/libc.so.6";
pub(super) const JEMALLOC: &str = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2";
pub(super) const TCMALLOC: &str = "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4";
pub(super) const MIMALLOC: &str = "/usr/lib/x86_64-linux-gnu/libmimalloc.so.2";
pub(super) const MUSL: &str = "/usr/lib/x86_64-linux-musl/libc.so";

pub(super) fn object(path: impl AsRef<Path>) -> ElfObject {
    let path = path.as_ref();
    let file = File::open(path)
        .unwrap_or_else(|error| panic!("{}: {error}; is its package installed?", path.display()));
    ElfObject::read(&file).unwrap()
}

fn find_with(path: impl AsRef<Path>, custom: &[CustomFunction]) -> Discovery {
    discover(&object(path), custom, Emulation::of_running_kernel()).unwrap()
}

fn find(path: impl AsRef<Path>) -> Discovery {
    find_with(path, &[])
}

/// The one allocator of an object.
pub(super) fn only(path: impl AsRef<Path>) -> Allocator {
    let mut found = find(path);
    assert_eq!(found.allocators.len(), 1, "{found:?}");
    found.allocators.remove(0)
}

fn symbols(probes: &[Probe]) -> BTreeSet<&str> {
    probes.iter().map(|probe| probe.symbol.as_str()).collect()
}

fn forwarding(found: &Discovery) -> BTreeSet<&str> {
    let forwards = |skipped: &&Skipped| matches!(skipped.because, SkippedBecause::Forwards);
    found.skipped.iter().filter(forwards).map(|skipped| skipped.symbol.as_str()).collect()
}

/// Holds probes to what is true of all of them, and returns those that are
/// single-stepped.
fn check(object: &ElfObject, probes: &[Probe]) -> BTreeSet<String> {
    let mut places = BTreeMap::new();
    let mut stepped = BTreeSet::new();
    for probe in probes {
        let placement = &probe.placement;
        assert_eq!(placement.address, probe.address + u64::from(placement.skipped), "{probe:?}");
        assert_eq!(
            object.address_to_file_offset(placement.address),
            Some(placement.file_offset),
            "{probe:?}"
        );
        assert_eq!(places.insert(placement.file_offset, probe), None, "twice: {probe:?}");
        assert_eq!(placement.function.frees(), probe.function.frees(), "{probe:?}");
        match &placement.cost {
            Cost::Emulated => {}
            Cost::SingleStepped { instruction } => {
                assert!(!instruction.is_empty());
                stepped.insert(probe.symbol.clone());
            }
            Cost::Unknown => panic!("{probe:?}"),
        }
    }
    stepped
}

/// Prints what a reader of the tests' output wants to compare.
fn print_table(title: &str, probes: &[Probe]) {
    eprintln!("{title}");
    for Probe { symbol, function, placement, .. } in probes {
        let cost = match &placement.cost {
            Cost::Emulated => "emulated",
            Cost::SingleStepped { instruction } => &format!("single-stepped, {instruction}"),
            Cost::Unknown => "unknown",
        };
        let moved = if placement.operands_moved(*function) { ", operands moved" } else { "" };
        eprintln!("  {symbol:<36} +{:<3} {cost}{moved}", placement.skipped);
    }
}

/// Check that each allocator of this machine has its functions found, that
/// what forwards to them is left out, and that no place is single-stepped
/// that need not be.
#[test]
fn real_allocators_are_found() {
    let common = ["malloc", "free", "calloc", "realloc"];
    for (path, kind, others, forwards, stepped) in [
        (
            GLIBC,
            Kind::Glibc,
            &["memalign", "posix_memalign", "valloc", "pvalloc"][..],
            &["reallocarray"][..],
            &[][..],
        ),
        (
            JEMALLOC,
            Kind::Jemalloc,
            &["posix_memalign", "aligned_alloc", "mallocx", "dallocx", "_Znwm", "_ZdlPvm"],
            &["_Znam", "_ZdlPv", "_ZdaPv"],
            &[],
        ),
        (
            TCMALLOC,
            Kind::Tcmalloc,
            &["memalign", "posix_memalign", "_Znwm", "_ZnwmRKSt9nothrow_t", "_ZdlPvm"],
            &["valloc", "pvalloc"],
            &[],
        ),
        (
            MIMALLOC,
            Kind::Mimalloc,
            &["_Znwm", "mi_posix_memalign", "mi_heap_malloc"],
            &["posix_memalign", "aligned_alloc", "_ZdlPvm"],
            // These load the heap into rdi first: calloc's count goes to a
            // register that holds no argument, realloc's block to one that a
            // cookie cannot name.
            &["calloc", "realloc"],
        ),
        (
            MUSL,
            Kind::Musl,
            &["aligned_alloc", "posix_memalign"],
            &["memalign", "reallocarray"],
            &[],
        ),
    ] {
        let object = object(path);
        let found = discover(&object, &[], Emulation::of_running_kernel()).unwrap();
        let [allocator] = &found.allocators[..] else { panic!("{path}: {found:?}") };
        print_table(path, &allocator.probes);
        assert_eq!(allocator.kind, kind, "{path}");
        let probed = symbols(&allocator.probes);
        for symbol in common.iter().chain(others) {
            assert!(probed.contains(symbol), "{path}: {symbol} is missing in {probed:?}");
        }
        let left_out = forwarding(&found);
        for symbol in forwards {
            assert!(left_out.contains(symbol), "{path}: {symbol} is not in {left_out:?}");
        }
        assert!(probed.is_disjoint(&left_out), "{path}");
        let is_stepped = check(&object, &allocator.probes);
        for symbol in common.iter().chain(others) {
            // mimalloc's own, beyond those above, are named by no test: there
            // are many, and few programs call them.
            assert_eq!(is_stepped.contains(*symbol), stepped.contains(symbol), "{path}: {symbol}");
        }
        assert!(found.custom.is_empty());
    }
}

/// Check that an alias is probed once, under the name that people know.
#[test]
fn aliases_are_probed_once() {
    let allocator = only(TCMALLOC);
    let probed = symbols(&allocator.probes);
    for alias in ["tc_malloc", "tc_free", "cfree", "_ZdlPv", "tc_new", "tc_newarray", "_Znam"] {
        assert!(!probed.contains(alias), "{alias}");
    }
    let addresses: BTreeSet<u64> = allocator.probes.iter().map(|probe| probe.address).collect();
    assert_eq!(addresses.len(), allocator.probes.len());
}

/// Check that the sanitizer's allocator is found, with operators of its own.
#[test]
fn sanitizer_is_an_allocator() {
    let allocator = only("/usr/lib/x86_64-linux-gnu/libasan.so.8");
    assert_eq!(allocator.kind, Kind::Other);
    let probed = symbols(&allocator.probes);
    for symbol in ["malloc", "free", "reallocarray", "_Znwm", "_ZdlPvm"] {
        assert!(probed.contains(symbol), "{symbol}: {probed:?}");
    }
}

/// Check that objects without an allocator of their own have none: programs
/// and libraries that import malloc, the dynamic loader.
#[test]
fn other_objects_have_none() {
    for path in [
        "/lib64/ld-linux-x86-64.so.2",
        "/usr/lib/x86_64-linux-gnu/libstdc++.so.6",
        "/usr/bin/redis-server",
        "/proc/self/exe",
    ] {
        assert!(find(path).is_empty(), "{path}");
    }
    let definitions = "void *malloc(unsigned long size) { return (void *)size; }
                       void free(void *block) { (void)block; }";
    let flags = ["-shared", "-fPIC", "-ffreestanding", "-nostdlib", "-O1"];
    let soname = ["-Wl,-soname,ld-linux-x86-64.so.2"];
    let loader = TestProgram::c(definitions, &[&flags[..], &soname].concat());
    assert!(find(loader.path()).is_empty());
    let library = TestProgram::c(definitions, &flags);
    assert_eq!(only(library.path()).kind, Kind::Other);
    let interposer = "void free(void *block) { (void)block; }";
    assert!(find(TestProgram::c(interposer, &flags).path()).is_empty());
}

/// Check that a static C++ program has its C library's functions probed and
/// operator new, which calls malloc, not; and that nothing is found once it
/// is stripped.
#[test]
fn static_programs_are_probed_once() {
    let source = "
        #include <cstdlib>
        #include <new>
        int main(int count, char **) {
            delete new int(count);
            delete[] new int[count];
            delete new (std::nothrow) long(count);
            struct alignas(64) Wide { int field; };
            delete new Wide{count};
            free(aligned_alloc(64, 64));
        }";
    let program = TestProgram::compile("g++", "cc", source, &["-static", "-O0"]);
    let found = find(program.path());
    let [allocator] = &found.allocators[..] else { panic!("{found:?}") };
    assert_eq!(allocator.kind, Kind::Glibc);
    let probed = symbols(&allocator.probes);
    for symbol in ["malloc", "free", "calloc", "realloc"] {
        assert!(probed.contains(symbol), "{symbol}: {probed:?}");
    }
    let operators: Vec<&&str> = probed.iter().filter(|symbol| symbol.starts_with("_Z")).collect();
    assert!(operators.is_empty(), "{operators:?}");
    let left_out = forwarding(&found);
    for symbol in ["_Znwm", "_Znam", "_ZnwmRKSt9nothrow_t", "_ZnwmSt11align_val_t", "_ZdlPv"] {
        assert!(left_out.contains(symbol), "{symbol}: {left_out:?}");
    }
    assert!(check(&object(program.path()), &allocator.probes).is_empty());

    let stripped = TestProgram::compile("g++", "cc", source, &["-static", "-s"]);
    assert!(find(stripped.path()).is_empty());
}

/// Check that a static musl program is recognized, also if nothing in it
/// frees, and a static-pie one of glibc's.
#[test]
fn other_static_programs_are_found() {
    let musl = |body| {
        let source = format!("#include <stdlib.h>\nint main(void) {{ {body} }}");
        TestProgram::compile("musl-gcc", "c", &source, &["-static", "-O0"])
    };
    let program = musl("free(malloc(1)); return calloc(1, 1) == 0;");
    let allocator = only(program.path());
    assert_eq!(allocator.kind, Kind::Musl);
    assert_eq!(symbols(&allocator.probes), BTreeSet::from(["malloc", "free", "calloc"]));
    assert!(check(&object(program.path()), &allocator.probes).is_empty());

    let leaking = only(musl("return malloc(1) == 0;").path());
    assert_eq!(leaking.kind, Kind::Musl);
    assert_eq!(symbols(&leaking.probes), BTreeSet::from(["malloc"]));

    let source = "#include <stdlib.h>\nint main(void) { return malloc(1) == 0; }";
    let program = TestProgram::c(source, &["-static-pie", "-O0"]);
    assert!(object(program.path()).is_static_program());
    assert_eq!(only(program.path()).kind, Kind::Glibc);
}

/// Check that an allocator behind a prefix is one of its own next to the C
/// library's, and that a gate alone opens none.
#[test]
fn prefixed_allocators_are_found() {
    let source = "
        #include <stdlib.h>
        static char heap[4096];
        __attribute__((noinline)) void *je_malloc(size_t size) { return heap + size; }
        __attribute__((noinline)) void *je_calloc(size_t n, size_t s) { return heap + n * s; }
        __attribute__((noinline)) void *je_mallocx(size_t size, int f) { return heap + size + f; }
        __attribute__((noinline)) void je_free(void *block) { *(char *)block = 1; }
        __attribute__((noinline)) void *mi_malloc(size_t size) { return heap + size; }
        int main(void) {
            je_free(je_malloc(1)); je_free(je_calloc(1, 1)); je_free(je_mallocx(1, 2));
            return mi_malloc(1) == malloc(1);
        }";
    let dynamic = TestProgram::c(source, &["-O1"]);
    let allocator = only(dynamic.path());
    assert_eq!((allocator.kind, allocator.prefix), (Kind::Jemalloc, "je_"));
    let expected = BTreeSet::from(["je_malloc", "je_free", "je_calloc", "je_mallocx"]);
    assert_eq!(symbols(&allocator.probes), expected);

    let found = find(TestProgram::c(source, &["-O1", "-static"]).path());
    let kinds: Vec<(Kind, &str)> =
        found.allocators.iter().map(|allocator| (allocator.kind, allocator.prefix)).collect();
    assert_eq!(kinds, [(Kind::Glibc, ""), (Kind::Jemalloc, "je_")]);
}

/// Check that families whose functions lead into each other's are one
/// allocator, with the outer functions left out.
#[test]
fn linked_families_are_one_heap() {
    let source = "
        typedef unsigned long size_t;
        static char heap[4096];
        __attribute__((noinline)) void *mi_malloc(size_t size) { return heap + size; }
        __attribute__((noinline)) void mi_free(void *block) { *(char *)block = 1; }
        __attribute__((noinline)) void *mi_new(size_t size) { return heap + 2 * size; }
        void *malloc(size_t size) { return mi_malloc(size); }
        void free(void *block) { mi_free(block); }
        void *_Znwm(size_t size) { return mi_new(size); }
        void *_Znam(size_t size) { return _Znwm(size); }";
    let library = TestProgram::c(source, &["-shared", "-fPIC", "-O1", "-ffreestanding"]);
    let found = find(library.path());
    let [allocator] = &found.allocators[..] else { panic!("{found:?}") };
    assert_eq!(allocator.kind, Kind::Mimalloc);
    assert_eq!(symbols(&allocator.probes), BTreeSet::from(["mi_malloc", "mi_free", "mi_new"]));
    assert_eq!(forwarding(&found), BTreeSet::from(["malloc", "free", "_Znwm", "_Znam"]));
}

/// Check that a function which calls another only on some paths is probed,
/// and one that fails without a call is left out.
#[test]
fn forwarding_needs_every_path() {
    let source = "
        typedef unsigned long size_t;
        static char heap[4096];
        extern void unknown(void);
        __attribute__((noinline)) void *malloc(size_t size) { unknown(); return heap + size; }
        __attribute__((noinline)) void free(void *block) { unknown(); *(char *)block = 1; }
        void *calloc(size_t n, size_t s) { return n > s ? malloc(n * s) : heap + n; }
        void *valloc(size_t size) { return size > 99 ? 0 : malloc(size); }
        void *pvalloc(size_t size) { unknown(); return malloc(size); }
        int posix_memalign(void **out, size_t a, size_t size) {
            if (size > a) { *out = heap; return 0; }
            *out = malloc(size);
            return 0;
        }
        void cfree(void *block) { if (block) free(block); }
        void *realloc(void *block, size_t size) { free(block); return malloc(size); }";
    let library = TestProgram::c(source, &["-shared", "-fPIC", "-O1", "-ffreestanding"]);
    let found = find(library.path());
    let probed = symbols(&found.allocators[0].probes);
    let expected = ["malloc", "free", "calloc", "posix_memalign", "cfree", "realloc"];
    assert_eq!(probed, BTreeSet::from(expected));
    assert_eq!(forwarding(&found), BTreeSet::from(["valloc", "pvalloc"]));
}

/// Check that two functions that pass calls to each other are not both left
/// out.
#[test]
fn circles_keep_a_probe() {
    let source = "
        .globl malloc, free, calloc, valloc
        .type malloc, @function
        .type free, @function
        .type valloc, @function
        .type pvalloc, @function
        .globl pvalloc
        .text
        malloc: push %rbx
                pop %rbx
                ret
        free:   push %rbx
                pop %rbx
                ret
        valloc: jmp pvalloc@PLT
        pvalloc: jmp valloc@PLT";
    let library = TestProgram::compile("gcc", "s", source, &["-shared", "-nostdlib"]);
    let found = find(library.path());
    let probed = symbols(&found.allocators[0].probes);
    assert_eq!(probed, BTreeSet::from(["malloc", "free", "pvalloc"]));
}

/// Check that functions which the user named are found, static ones and each
/// of the same name, and that they are not probed as the allocator's, too.
#[test]
fn custom_functions_are_found() {
    let source = "
        #include <stdlib.h>
        static __attribute__((noinline, used)) void *pool_get(int pool, size_t size) {
            return malloc(size + pool);
        }
        __attribute__((noinline)) void pool_put(int pool, void *block) {
            if (pool) free(block);
        }
        static void *plain(size_t size) { return (void *)size; }
        static void *(*choose(void))(size_t) { return plain; }
        void *chosen(size_t size) __attribute__((ifunc(\"choose\")));
        int main(void) { pool_put(1, pool_get(1, 2)); return chosen(1) != 0; }";
    let custom = [
        CustomFunction::parse_allocate("pool_get:size=2,ret").unwrap(),
        CustomFunction::parse_allocate("chosen").unwrap(),
        CustomFunction::parse_allocate("absent").unwrap(),
        CustomFunction::parse_free("pool_put:ptr=2").unwrap(),
    ];
    let program = TestProgram::c(source, &["-O1"]);
    let found = find_with(program.path(), &custom);
    assert!(found.allocators.is_empty());
    assert_eq!(symbols(&found.custom), BTreeSet::from(["pool_get", "pool_put"]));
    let get = found.custom.iter().find(|probe| probe.symbol == "pool_get").unwrap();
    assert_eq!(get.function, Function::CustomAllocate);
    assert_eq!(get.arguments, Arguments { size: 2, count: 0, pointer: 0 });
    let indirect = |skipped: &Skipped| {
        skipped.symbol == "chosen" && matches!(skipped.because, SkippedBecause::Indirect)
    };
    assert!(found.skipped.iter().any(indirect), "{:?}", found.skipped);

    let again = CustomFunction::parse_allocate("malloc").unwrap();
    let found = find_with(GLIBC, &[again]);
    assert_eq!(symbols(&found.custom), BTreeSet::from(["malloc"]));
    assert!(!symbols(&found.allocators[0].probes).contains("malloc"));
}

/// Check that an object with functions without end is worked off within
/// limits, and says what it left out.
#[test]
fn many_functions_are_limited() {
    // Names of static functions may occur any number of times; each of these
    // runs through the code of all that follow.
    let mut source = String::from(".text\n.globl malloc, free\n");
    source += ".type malloc, @function\nmalloc: ret\n.type free, @function\nfree: ret\n";
    for number in 0..3000 {
        source += &format!(".type calloc{number}, @function\ncalloc{number}: test %rdi, %rdi\n");
        source += &format!(".symver calloc{number}, calloc@V{number}\n");
    }
    source += "ret\n";
    let mut versions = String::new();
    for number in 0..3000 {
        versions += &format!("V{number} {{ }};\n");
    }
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("versions");
    std::fs::write(&script, versions).unwrap();
    let flag = format!("-Wl,--version-script={}", script.display());
    let library = TestProgram::compile("gcc", "s", &source, &["-shared", "-nostdlib", &flag]);
    let found = find(library.path());
    let too_many = |skipped: &Skipped| matches!(skipped.because, SkippedBecause::TooMany);
    assert!(found.skipped.iter().any(too_many), "{:?}", found.skipped);
    assert!(found.allocators[0].probes.len() <= 512);
}
