//! What the kernel tells of a program: what it cost the verifier, and how long
//! it ran.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

use super::sys;

/// BPF_ENABLE_STATS, since Linux 5.8.
const ENABLE_STATISTICS: u32 = 32;
/// BPF_STATS_RUN_TIME.
const RUN_TIME: u32 = 0;

/// Attribute of BPF_ENABLE_STATS.
#[repr(C)]
struct StatisticsAttribute {
    kind: u32,
}

/// `struct bpf_prog_info`, up to what is wanted. As zeros it asks for none of
/// the lists that the kernel would write elsewhere.
#[repr(C)]
struct ProgramInfo {
    before: [u64; 24],
    run_time_ns: u64,
    runs: u64,
    /// Runs that the kernel left out, since the program was running on that CPU.
    recursion_misses: u64,
    verified_instructions: u32,
    /// Its padding in the kernel's structure: another field.
    behind: u32,
}

const _: () = {
    assert!(std::mem::offset_of!(ProgramInfo, run_time_ns) == 192);
    assert!(std::mem::offset_of!(ProgramInfo, recursion_misses) == 208);
    assert!(std::mem::offset_of!(ProgramInfo, verified_instructions) == 216);
    assert!(size_of::<ProgramInfo>() == 224);
};

fn info(program: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    let mut info = ProgramInfo {
        before: [0; 24],
        run_time_ns: 0,
        runs: 0,
        recursion_misses: 0,
        verified_instructions: 0,
        behind: 0,
    };
    // SAFETY: the front of `struct bpf_prog_info`; as zeros it holds no pointers.
    unsafe { sys::object_info(program, &mut info)? };
    Ok(info)
}

/// How many instructions the verifier looked at before it took a program, each
/// as often as it came by. `None`: the kernel does not tell (before 5.16).
pub fn verified_instructions(program: BorrowedFd<'_>) -> io::Result<Option<u32>> {
    Ok(Some(info(program)?.verified_instructions).filter(|count| *count != 0))
}

/// How often the kernel left a program out, since it was running on that CPU
/// already.
pub fn missed_runs(program: BorrowedFd<'_>) -> io::Result<u64> {
    info(program).map(|info| info.recursion_misses)
}

/// For how many nanoseconds a program ran while statistics were taken, all its
/// runs on all CPUs together.
pub fn run_time_ns(program: BorrowedFd<'_>) -> io::Result<u64> {
    info(program).map(|info| info.run_time_ns)
}

/// Has the kernel measure the run time of BPF programs, all there are, until
/// the descriptor is closed. That costs each run two readings of a clock.
pub fn take_statistics() -> io::Result<OwnedFd> {
    let mut attribute = StatisticsAttribute { kind: RUN_TIME };
    // SAFETY: the layout of BPF_ENABLE_STATS, without pointers.
    let fd = unsafe { sys::bpf(ENABLE_STATISTICS, &mut attribute)? };
    // SAFETY: the kernel has just made this descriptor, and for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
