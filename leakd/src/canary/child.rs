//! The process that leakd tries its probes on: a known pattern of allocations,
//! leaks and frees, under a seccomp filter as containers have one.

use super::trap::Trap;
use std::ffi::c_void;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// The hidden command that runs it.
pub const COMMAND: &str = "canary-child";

/// What the pattern amounts to, by construction; see [`pattern`].
#[derive(Clone, Copy, Debug)]
pub struct Truth;

impl Truth {
    /// Calls that return a block.
    pub const ALLOCATIONS: u64 = 100 + 20 + 21 + 10 + 9;
    /// Blocks that are still there at the end.
    pub const BLOCKS: u64 = 10 + 1;
    /// Their bytes.
    pub const BYTES: u64 = 10 * 64 + 48;
    /// Calls that return none.
    pub const FAILED: u64 = 2;
}

/// Pairs of malloc and free in a round of a measurement ...
const PAIRS: u64 = 100;
/// ... calls of a probed function ...
const CALLS: u64 = 100;
/// ... and the most rounds.
const ROUNDS: usize = 200;
/// A measurement that has taken so long is good enough: where traps are slow
/// (single-stepped probes, emulated machines), nobody is to wait for it. There are
/// seven at each start, and some rounds of 100 settle each of them.
const ENOUGH: Duration = Duration::from_millis(10);

/// A size that no allocator can hand out.
const HUGE: usize = isize::MAX as usize - 4096;

/// Runs the child's side. It obeys single bytes on its standard input, and
/// answers each with one line: `p` does the pattern; `m` measures a pair of
/// malloc and free, and [`Trap::order`] a call, in picoseconds. Ends with its
/// input. Allocates nothing but the pattern once it has said `ready`.
pub fn run() -> i32 {
    let filtered = filter_system_calls();
    answer(if filtered { b"ready\n" } else { b"unfiltered\n" });
    loop {
        let mut byte = 0u8;
        // SAFETY: one byte of ours.
        let count = unsafe { libc::read(0, (&raw mut byte).cast::<c_void>(), 1) };
        if count != 1 {
            return 0;
        }
        match byte {
            b'p' => {
                pattern();
                answer(b"done\n");
            }
            b'm' => answer_number(median(PAIRS, pairs)),
            order => match [Trap::Emulated, Trap::SingleStepped]
                .into_iter()
                .find(|trap| trap.order() == order)
            {
                Some(trap) => answer_number(median(CALLS, || calls(trap))),
                None => return 2,
            },
        }
    }
}

fn answer(text: &[u8]) {
    // SAFETY: `text` is good for its length. A parent that has gone is none of
    // our concern: the next read ends us.
    unsafe { libc::write(1, text.as_ptr().cast::<c_void>(), text.len()) };
}

/// Writes a number and a line's end, without allocating.
fn answer_number(mut number: u64) {
    let mut text = [b'\n'; 21];
    let mut at = text.len() - 1;
    loop {
        at -= 1;
        text[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    answer(&text[at..]);
}

/// The pattern. [`Truth`] says what it amounts to.
#[inline(never)]
fn pattern() {
    // SAFETY: every pointer goes to free or realloc once, and none is used after.
    unsafe {
        for index in 0..100 {
            let block = black_box(libc::malloc(64));
            if index % 10 != 0 {
                libc::free(block);
            }
        }
        for _ in 0..20 {
            libc::free(black_box(libc::calloc(3, 40)));
        }
        // One block that grows twenty times, and stays.
        let mut block = black_box(libc::malloc(16));
        for step in 1..20 {
            block = black_box(libc::realloc(block, 16 + 400 * step));
        }
        block = black_box(libc::realloc(block, 48));
        // A realloc that fails leaves it alone.
        black_box(libc::realloc(block, black_box(HUGE)));
        black_box(libc::malloc(black_box(HUGE)));
        for _ in 0..10 {
            let mut aligned = std::ptr::null_mut();
            libc::posix_memalign(&raw mut aligned, 256, 100);
            libc::free(black_box(aligned));
        }
        for _ in 0..9 {
            libc::free(black_box(libc::aligned_alloc(64, 128)));
        }
    }
}

/// Picoseconds of each of the `count` things in a round: the median of the
/// rounds, since some are interrupted.
fn median(count: u64, round: impl Fn()) -> u64 {
    let mut rounds = [0; ROUNDS];
    let mut done = 0;
    let start = Instant::now();
    while done < ROUNDS && (done == 0 || start.elapsed() < ENOUGH) {
        let begin = Instant::now();
        round();
        rounds[done] = begin.elapsed().as_nanos() as u64 * 1000 / count;
        done += 1;
    }
    // In place: it must not allocate.
    rounds[..done].sort_unstable();
    rounds[done / 2]
}

/// [`PAIRS`] pairs of malloc and free.
#[inline(never)]
fn pairs() {
    for _ in 0..PAIRS {
        // SAFETY: the block is freed once.
        unsafe { libc::free(black_box(libc::malloc(black_box(64)))) };
    }
}

/// [`CALLS`] calls of a function that may be probed.
#[inline(never)]
fn calls(trap: Trap) {
    let function = black_box(trap.function());
    for _ in 0..CALLS {
        function();
    }
}

/// Allows what was known before uretprobe(2) came (number 335), and the calls
/// since 424, and answers EPERM to the rest, as container runtimes do: on some
/// kernels that kills a process under a return probe (fixed by 6.14's seccomp
/// passthrough for it).
fn filter_system_calls() -> bool {
    /// Last of the first range on x86-64 (rseq).
    const LAST_OLD: u32 = 334;
    /// First of the numbers that all architectures share (pidfd_send_signal).
    const FIRST_SHARED: u32 = 424;
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const ABOVE: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
    const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        step(LOAD, 0, 0, 0),
        step(ABOVE, 0, 1, LAST_OLD),
        step(AT_LEAST, 0, 1, FIRST_SHARED),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: prctl(2) with integers, then with a filter that lives through the
    // call.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) == 0
    }
}
