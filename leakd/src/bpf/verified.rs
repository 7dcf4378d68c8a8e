//! What a program cost the verifier, and what it has missed.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::sys;

/// BPF_OBJ_GET_INFO_BY_FD.
const OBJECT_INFO: u32 = 15;

/// Attribute of BPF_OBJ_GET_INFO_BY_FD.
#[repr(C)]
#[derive(Default)]
struct InfoAttribute {
    object_fd: u32,
    length: u32,
    info: u64,
}

const _: () = assert!(size_of::<InfoAttribute>() == 16);

/// `struct bpf_prog_info`, up to what is wanted. As zeros it asks for none of
/// the lists that the kernel would write elsewhere.
#[repr(C)]
struct ProgramInfo {
    before: [u64; 26],
    /// Runs that the kernel left out, since the program was running on that CPU.
    recursion_misses: u64,
    verified_instructions: u32,
    /// Its padding in the kernel's structure: another field.
    behind: u32,
}

const _: () = {
    assert!(std::mem::offset_of!(ProgramInfo, recursion_misses) == 208);
    assert!(std::mem::offset_of!(ProgramInfo, verified_instructions) == 216);
    assert!(size_of::<ProgramInfo>() == 224);
};

/// How many instructions the verifier looked at before it took a program, each
/// as often as it came by. `None`: the kernel does not tell (before 5.16).
pub fn instructions(program: BorrowedFd<'_>) -> io::Result<Option<u32>> {
    Ok(Some(information(program)?.verified_instructions).filter(|count| *count != 0))
}

/// How often the kernel left a program out, since it was running on that CPU
/// already.
pub fn missed_runs(program: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(information(program)?.recursion_misses)
}

fn information(program: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    let mut info =
        ProgramInfo { before: [0; 26], recursion_misses: 0, verified_instructions: 0, behind: 0 };
    let mut attribute = InfoAttribute {
        object_fd: program.as_raw_fd() as u32,
        length: size_of::<ProgramInfo>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: the layout of BPF_OBJ_GET_INFO_BY_FD; `info` is good for `length`
    // bytes, any bytes make a valid one, and it holds no pointers.
    unsafe { sys::bpf(OBJECT_INFO, &mut attribute)? };
    Ok(info)
}
