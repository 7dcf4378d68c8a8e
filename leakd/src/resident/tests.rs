//! The parts of real processes, against what their C library says of itself.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

use super::*;

/// Prints what mallinfo2(3) says when it is asked, and keeps blocks of which every
/// second one was freed; a large one, another arena, and memory of its own.
const PROGRAM: &str = r#"
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
static char *kept[100000];
static void *in_arena(void *unused)
{
	for (int i = 0; i < 20000; i++)
		memset(malloc(500), 1, 500);
	pause();
	return unused;
}
int pause(void);
int main(void)
{
	pthread_t thread;
	setvbuf(stdin, 0, _IONBF, 0); /* no buffer from the heap while it is looked at */
	for (int i = 0; i < 100000; i++)
		kept[i] = memset(malloc(200), 1, 200);
	for (int i = 0; i < 100000; i += 2)
		free(kept[i]);
	char *large = memset(malloc(10 << 20), 1, 10 << 20);
	char *own = mmap(0, 5 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(own, 1, 5 << 20);
	pthread_create(&thread, 0, in_arena, 0);
	usleep(200000);
	struct mallinfo2 info = mallinfo2();
	printf("%zu %zu %zu %zu %p %p %p\n", info.arena, info.uordblks, info.fordblks, info.hblkhd,
	       (void *)kept[1], (void *)large, (void *)own);
	fflush(stdout);
	getchar();
}
"#;

struct Subject {
    child: Child,
    _input: ChildStdin,
    told: Vec<u64>,
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn subject() -> Subject {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("subject");
    let mut compiler = Command::new("cc")
        .args(["-x", "c", "-", "-O1", "-w", "-pthread", "-include", "unistd.h", "-o"])
        .arg(&program)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    compiler.stdin.take().unwrap().write_all(PROGRAM.as_bytes()).unwrap();
    assert!(compiler.wait().unwrap().success());
    let mut child =
        Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let number = |word: &str| match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).unwrap(),
        None => word.parse().unwrap(),
    };
    let told = line.split_whitespace().map(number).collect();
    Subject { _input: child.stdin.take().unwrap(), child, told }
}

#[track_caller]
fn assert_near(one: u64, other: u64) {
    let most = other / 50 + (256 << 10);
    assert!(one.abs_diff(other) <= most, "{one} is not near {other}");
}

/// Check each part with a process of known parts, against mallinfo2(3) and
/// /proc/PID/status: without a ledger, and with one that knows some blocks.
#[test]
fn parts_are_those_of_the_c_library() {
    let subject = subject();
    let [arena, used, free, mapped, one, large, _] = subject.told[..] else {
        panic!("{:?}", subject.told)
    };
    assert!(arena > 29 << 20 && free > 9 << 20 && mapped > 10 << 20, "{:?}", subject.told);
    let pid = subject.child.id();
    let found = Composition::of(pid, Vec::new(), false).unwrap();
    assert_eq!(found.outstanding, 0);
    assert_eq!(found.unresolved, 0, "{found:?}");
    assert_near(found.unseen, used + mapped);
    assert_near(found.allocator, free);
    // Its own mapping and the variables.
    assert!(found.other > 5 << 20 && found.other < 7 << 20, "{found:?}");
    assert!(found.stacks >= 8 << 10 && found.stacks < 256 << 10, "{found:?}");
    assert!(found.files > 500 << 10, "{found:?}");
    let resident = Process::new(pid.cast_signed()).unwrap().status().unwrap().vmrss.unwrap();
    assert_near(found.resident, resident * 1024);
    assert_eq!(
        found.resident,
        found.heap() + found.stacks + found.files + found.shared + found.other
    );
    // Two blocks are known: what is not theirs of their chunks is the allocator's.
    let block = |address, size| Block { address, size, site: 0, birth_ns: 0, weight: 1 };
    let with = Composition::of(pid, vec![block(one, 200), block(large, 10 << 20)], false).unwrap();
    assert_eq!(with.outstanding, 200 + (10 << 20));
    assert_eq!(with.heap(), found.heap());
    let [chunk, mapping] = [208, (10 << 20) + 4096];
    assert_eq!(with.unseen, found.unseen - chunk - mapping);
}

/// Check that blocks of an allocator that is not known are found, and the rest of
/// their memory told apart.
#[test]
fn other_allocators_are_unresolved() {
    let subject = subject();
    let pid = subject.child.id();
    let address = subject.told[6] + 0x10340;
    let block = Block { address, size: 1000, site: 0, birth_ns: 0, weight: 1 };
    let blocks = vec![block, Block { address: address + 8, ..block }];
    let found = Composition::of(pid, blocks, false).unwrap();
    assert_eq!(found.outstanding, 1000);
    assert!(found.unresolved >= (5 << 20) - 1000, "{found:?}");
    // Where such an allocator is known to be, it may have any memory but glibc's heaps.
    let before = Composition::of(pid, Vec::new(), false).unwrap();
    let foreign = Composition::of(pid, Vec::new(), true).unwrap();
    assert!(foreign.unresolved >= 15 << 20 && foreign.other < 1 << 20, "{foreign:?}");
    assert_eq!(foreign.allocator, before.allocator);
}

/// Check that a process that is gone is an error.
#[test]
fn gone() {
    let mut subject = subject();
    subject.child.kill().unwrap();
    subject.child.wait().unwrap();
    assert!(Composition::of(subject.child.id(), Vec::new(), false).is_err());
}
