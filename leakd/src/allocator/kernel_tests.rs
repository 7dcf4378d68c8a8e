//! What the running kernel really does with the probes. These tests need
//! root.

use std::ffi::CString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::FromRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use aya_obj::generated::perf_event_attr;
use leakd_common::cookie::{Arguments, Function};

use super::placement::place;
use super::tests::{GLIBC, JEMALLOC, MIMALLOC, MUSL, TCMALLOC, object, only};
use super::*;
use crate::elf::test_program::TestProgram;

/// A uprobe that counts how often a process passes it.
struct Counter(File);

impl Counter {
    fn attach(pid: u32, path: &Path, offset: u64) -> Self {
        let kind = std::fs::read_to_string("/sys/bus/event_source/devices/uprobe/type");
        let kind = kind.expect("the kernel has no uprobe events").trim().parse().unwrap();
        let name = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: a structure of integers and unions of them, for which zero
        // is a valid value.
        let mut attributes: perf_event_attr = unsafe { std::mem::zeroed() };
        attributes.type_ = kind;
        attributes.size = size_of::<perf_event_attr>() as u32;
        attributes.__bindgen_anon_3.uprobe_path = name.as_ptr() as u64;
        attributes.__bindgen_anon_4.probe_offset = offset;
        // SAFETY: the structure and the path live until the call returns; the
        // rest are integers.
        let descriptor = unsafe {
            libc::syscall(libc::SYS_perf_event_open, &raw const attributes, pid, -1, -1, 8)
        };
        assert!(
            descriptor >= 0,
            "{}+{offset:#x}: {}; this test needs root",
            path.display(),
            std::io::Error::last_os_error()
        );
        // SAFETY: the kernel has just made this descriptor for us.
        Self(unsafe { File::from_raw_fd(descriptor as i32) })
    }

    fn count(&mut self) -> u64 {
        let mut value = [0; 8];
        self.0.read_exact(&mut value).unwrap();
        u64::from_ne_bytes(value)
    }
}

/// A program that runs a round whenever it is told to.
struct Rounds {
    child: Child,
    tell: ChildStdin,
    told: BufReader<ChildStdout>,
}

impl Rounds {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let tell = child.stdin.take().unwrap();
        let told = BufReader::new(child.stdout.take().unwrap());
        let mut rounds = Self { child, tell, told };
        // The first round also has the lazily bound functions bound.
        rounds.run();
        rounds
    }

    fn run(&mut self) {
        self.tell.write_all(b"x").unwrap();
        let mut byte = [0];
        self.told.read_exact(&mut byte).expect("the program has ended");
    }

    /// Whether the kernel has made its area for single-stepping.
    fn was_stepped(&self) -> bool {
        let maps = File::open(format!("/proc/{}/maps", self.child.id())).unwrap();
        BufReader::new(maps).lines().any(|line| line.unwrap().ends_with("[uprobes]"))
    }
}

impl Drop for Rounds {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Calls of each function in a round of the program below.
const CALLS: u64 = 1000;

/// Reads and writes by system calls only: stdio allocates.
const PROGRAM: &str = "
    #include <stdlib.h>
    #include <unistd.h>
    int main(void) {
        char byte;
        while (read(0, &byte, 1) == 1) {
            for (int i = 0; i < 1000; i++) {
                void *volatile a = malloc(i % 3 ? i : 70000 + i);
                void *volatile b = realloc(a, 2 * i + 1);
                void *volatile c = calloc(3, i + 1);
                void *volatile d;
                if (posix_memalign((void **)&d, 64, i + 1)) abort();
                free(b);
                free(c);
                free(d);
                free(0);
            }
            if (write(1, &byte, 1) != 1) break;
        }
    }
";

/// How the program below comes to its allocator.
#[derive(Clone, Copy)]
enum Loaded {
    /// It is the program's own.
    Static,
    /// By the loader, as the C library.
    Library,
    /// Before the C library.
    Preloaded,
    /// It is the loader, too, as musl is.
    Loader,
}

impl Loaded {
    fn command(self, allocator: &Path, program: &Path) -> Command {
        let mut command = match self {
            Self::Loader => Command::new(allocator),
            _ => Command::new(program),
        };
        match self {
            Self::Static => &mut command,
            Self::Library => command.env("LD_LIBRARY_PATH", allocator.parent().unwrap()),
            Self::Preloaded => command.env("LD_PRELOAD", allocator),
            Self::Loader => command.arg(program),
        };
        command
    }
}

/// Check that the chosen places are passed exactly once a call, and that the
/// kernel single-steps those that we say it does and no others, in each
/// allocator of this machine.
#[test]
fn real_allocators_are_counted_exactly() {
    let glibc = TestProgram::c(PROGRAM, &["-O1", "-fno-builtin"]).keep_beside(GLIBC);
    let musl =
        TestProgram::compile("musl-gcc", "c", PROGRAM, &["-O1", "-fno-builtin"]).keep_beside(MUSL);
    let fixed = TestProgram::c(PROGRAM, &["-O1", "-fno-builtin", "-static"]);
    let preloaded = [JEMALLOC, TCMALLOC, MIMALLOC]
        .map(|library| TestProgram::c(PROGRAM, &["-O1", "-fno-builtin"]).keep_beside(library));
    let mut jobs = vec![
        (glibc.beside(GLIBC), glibc.path(), Loaded::Library),
        (musl.beside(MUSL), musl.path(), Loaded::Loader),
        (fixed.path(), fixed.path(), Loaded::Static),
    ];
    for (program, library) in preloaded.iter().zip([JEMALLOC, TCMALLOC, MIMALLOC]) {
        jobs.push((program.beside(library), program.path(), Loaded::Preloaded));
    }
    for (path, program, loaded) in jobs {
        let allocator = only(&path);
        for (symbol, calls) in
            [("malloc", CALLS), ("realloc", CALLS), ("calloc", CALLS), ("free", 4 * CALLS)]
        {
            let probe = allocator.probes.iter().find(|probe| probe.symbol == symbol);
            let Some(probe) = probe else { panic!("{symbol} is missing: {allocator:?}") };
            let mut command = loaded.command(&path, &program);
            let mut rounds = Rounds::start(&mut command);
            let pid = rounds.child.id();
            let mut counter = Counter::attach(pid, &path, probe.placement.file_offset);
            rounds.run();
            let counted = counter.count();
            let what = format!("{}: {probe:?}", path.display());
            match (symbol, allocator.kind) {
                // Its calloc calls malloc.
                ("malloc", Kind::Musl) => {
                    assert_eq!(counted, 2 * CALLS, "{what}");
                }
                // Its realloc calls free for a block that moves.
                ("free", Kind::Mimalloc) => {
                    assert!((calls..=calls + CALLS).contains(&counted), "{counted}: {what}");
                }
                _ => assert_eq!(counted, calls, "{what}"),
            }
            let stepped = matches!(probe.placement.cost, Cost::SingleStepped { .. });
            assert_eq!(rounds.was_stepped(), stepped, "{what}");
        }
    }
}

/// Functions that begin with one instruction each, and whether a probe there
/// is emulated.
const BEGINNINGS: &[(&str, &str)] = &[
    ("push_rbx", "push %rbx; pop %rbx"),
    ("push_r12", "push %r12; pop %r12"),
    ("nop1", "nop"),
    ("nop2", ".byte 0x66, 0x90"),
    ("nop3", ".byte 0x0f, 0x1f, 0x00"),
    ("nop4", ".byte 0x0f, 0x1f, 0x40, 0x00"),
    ("nop5", ".byte 0x0f, 0x1f, 0x44, 0x00, 0x00"),
    ("nop6", ".byte 0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00"),
    ("nop7", ".byte 0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00"),
    ("nop8", ".byte 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00"),
    ("jump_short", "jmp 9f; int3; 9:"),
    ("jump_near", ".byte 0xe9, 0, 0, 0, 0"),
    ("branch_short", "je 9f; 9:"),
    ("branch_near", ".byte 0x0f, 0x84, 0, 0, 0, 0"),
    ("call_near", "call nop1"),
    ("endbr", "endbr64; mov %rdi, %rax"),
    ("test", "test %rdi, %rdi"),
    ("sub", "sub $8, %rsp; add $8, %rsp"),
    ("load", "mov nop1(%rip), %rax"),
    ("push_memory", "push nop1(%rip); pop %rax"),
    ("push_number", "push $1; pop %rax"),
    ("pop", "pop %rax; push %rax"),
    ("leave_slot", "ret"),
];

/// Check that the kernel emulates the instructions that we say it emulates.
#[test]
fn instructions_are_treated_as_said() {
    let mut source = String::from(".text\n");
    for (name, code) in BEGINNINGS {
        source += &format!(
            ".globl {name}\n.type {name}, @function\n{name}: {code}\nret\n.size {name}, .-{name}\n"
        );
    }
    // main: for each byte read, call each function, write the byte
    source += ".globl main\nmain: push %rbx; sub $16, %rsp\n\
               1: xor %edi, %edi; mov %rsp, %rsi; mov $1, %edx; call read\n\
               cmp $1, %eax; jne 2f\n";
    for (name, _) in BEGINNINGS {
        source += &format!("call {name}\n");
    }
    source += "mov $1, %edi; mov %rsp, %rsi; mov $1, %edx; call write; jmp 1b\n\
               2: add $16, %rsp; pop %rbx; ret\n.section .note.GNU-stack,\"\",@progbits\n";
    let program = TestProgram::compile("gcc", "s", &source, &["-static"]);
    let object = object(program.path());
    let names: Vec<&str> = BEGINNINGS.iter().map(|(name, _)| *name).collect();
    let emulation = Emulation::of_running_kernel();
    for symbol in object.find_functions(&names).unwrap() {
        // `push; pop` and the like: no other place is emulated, but for the
        // one at the entry.
        let (address, size) = (symbol.address, symbol.size);
        let none = Arguments::default();
        let placement =
            place(&object, address, size, Function::CustomAllocate, none, emulation).unwrap();
        assert_eq!(placement.skipped, 0, "{symbol:?}: {placement:?}");
        let mut rounds = Rounds::start(&mut Command::new(program.path()));
        let pid = rounds.child.id();
        let mut counter = Counter::attach(pid, &program.path(), placement.file_offset);
        rounds.run();
        let expected = if symbol.name == "nop1" { 2 } else { 1 };
        assert_eq!(counter.count(), expected, "{symbol:?}");
        let stepped = matches!(placement.cost, Cost::SingleStepped { .. });
        assert_eq!(rounds.was_stepped(), stepped, "{symbol:?}: {placement:?}");
        eprintln!("{:<12} {}", symbol.name, if stepped { "single-stepped" } else { "emulated" });
    }
}
