//! Where the dead part of a thread's stack is: below its stack pointer.
//!
//! What returned functions left there leads to blocks that nobody can reach any
//! more. It is left out only where the stack's own bounds are known for certain,
//! since what lies below may be anything else: the kernel marks the first
//! thread's stack, and glibc writes down those of the others, at the top of each.

use std::ops::Range;

use super::memory::{Kind, Mapping, Memory};

/// Bytes below the stack pointer that a function may use (System V ABI).
const RED_ZONE: u64 = 128;
/// How far above the stack pointer the thread's control block is looked for.
const FARTHEST: u64 = 64 << 20;
/// Words that are read at once.
const WORDS: usize = 4096;
/// `struct pthread` of glibc is aligned to so many bytes ...
const ALIGNMENT: u64 = 64;
/// ... and has fewer words than this.
const CONTROL_BLOCK: usize = 512;

/// The dead part of the stack that a stack pointer points into, if its bounds
/// are known.
pub fn dead_part(memory: &Memory, mappings: &[Mapping], pointer: u64) -> Option<Range<u64>> {
    let behind = mappings.partition_point(|mapping| mapping.addresses.end <= pointer);
    let mapping = mappings.get(behind).filter(|one| one.addresses.contains(&pointer))?;
    let begin = match mapping.kind {
        Kind::Stack => mapping.addresses.start,
        Kind::Anonymous => {
            let end = mapping.addresses.end.min(pointer.saturating_add(FARTHEST));
            lower_bound(memory, pointer, end)?.max(mapping.addresses.start)
        }
        Kind::Heap | Kind::CLibrary | Kind::Other => return None,
    };
    let end = pointer.saturating_sub(RED_ZONE) & !7;
    (begin < end).then_some(begin..end)
}

/// Where the stack begins by what glibc has written down above the stack pointer.
fn lower_bound(memory: &Memory, pointer: u64, end: u64) -> Option<u64> {
    let mut words = vec![0u64; WORDS + CONTROL_BLOCK];
    let mut begin = pointer / ALIGNMENT * ALIGNMENT;
    while begin < end {
        let wanted = words.len().min(((end - begin) / 8) as usize);
        let read = memory.read_as_debugger(begin, &mut words[..wanted]);
        let step = (ALIGNMENT / 8) as usize;
        for first in (0..read.min(WORDS)).step_by(step) {
            let address = begin + first as u64 * 8;
            let block = &words[first..read.min(first + CONTROL_BLOCK)];
            if let Some(bound) = bound_in(block, address, pointer) {
                return Some(bound);
            }
        }
        if read <= WORDS {
            return None;
        }
        begin += WORDS as u64 * 8;
    }
    None
}

/// If `words` at `address` are a thread's control block (`struct pthread` of
/// glibc, nptl/descr.h): the begin of its stack, behind the guard.
fn bound_in(words: &[u64], address: u64, pointer: u64) -> Option<u64> {
    // `tcbhead_t`: `tcb` and `self` both point to itself.
    if address <= pointer || words.first() != Some(&address) || words.get(2) != Some(&address) {
        return None;
    }
    // `stackblock`, `stackblock_size`, `guardsize`, `reported_guardsize`.
    words.windows(4).skip(3).find_map(|part| {
        let [block, size, guard, reported] = *part.first_chunk::<4>()?;
        let end = block.checked_add(size)?;
        let fits = block < pointer
            && address < end
            && end - address < (CONTROL_BLOCK as u64) * 8 * 4
            && guard < size
            && guard.is_multiple_of(4096)
            && reported <= size
            && block + guard <= pointer;
        fits.then(|| block + guard)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// Check that of the stacks of this process' threads the part below the
    /// stack pointer is found, as pthread_getattr_np(3) has it, and that memory
    /// which is no stack has no dead part.
    #[test]
    fn bounds_are_those_of_the_c_library() {
        let memory = Memory::open(std::process::id()).unwrap();
        let (send, receive) = channel();
        let (stop, stopped) = channel::<()>();
        let thread = std::thread::Builder::new()
            .stack_size(300 << 10)
            .spawn(move || {
                let mut bounds = (std::ptr::null_mut(), 0usize);
                // SAFETY: the attributes are made by the first call and given
                // back by the last; all pointers are to variables that live.
                unsafe {
                    let mut attributes = std::mem::zeroed();
                    libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes);
                    libc::pthread_attr_getstack(
                        &raw const attributes,
                        &raw mut bounds.0,
                        &raw mut bounds.1,
                    );
                    libc::pthread_attr_destroy(&raw mut attributes);
                }
                let here = std::ptr::from_ref(&bounds) as u64;
                send.send((here, bounds.0 as u64, bounds.1 as u64)).unwrap();
                let _ = stopped.recv();
            })
            .unwrap();
        let (here, begin, size) = receive.recv().unwrap();
        assert!((begin..begin + size).contains(&here));
        let mappings = memory.mappings().unwrap();
        let dead = dead_part(&memory, &mappings, here).unwrap();
        assert_eq!(dead, begin..(here - RED_ZONE) & !7);
        let block = Box::new([0u64; 64 << 10]);
        let inside = std::ptr::from_ref(&block[60 << 10]) as u64;
        assert_eq!(dead_part(&memory, &mappings, inside), None);
        assert_eq!(dead_part(&memory, &mappings, 8), None);
        drop(stop);
        thread.join().unwrap();
    }

    /// Check that a stack that the program brought along is known by its own
    /// bounds, so that nothing else in the same mapping is taken for dead.
    #[test]
    fn a_stack_within_other_memory() {
        let (address, pointer) = (0x7000_0000_8000u64, 0x7000_0000_7000u64);
        let mut words = vec![0u64; CONTROL_BLOCK];
        (words[0], words[2]) = (address, address);
        words[210] = 0x7000_0000_4000;
        words[211] = 0x5000;
        assert_eq!(bound_in(&words, address, pointer), Some(0x7000_0000_4000));
        words[212] = 0x1000;
        assert_eq!(bound_in(&words, address, pointer), Some(0x7000_0000_5000));
        words[211] = 0x3000; // it would end in front of the control block
        assert_eq!(bound_in(&words, address, pointer), None);
        words[2] = 0;
        assert_eq!(bound_in(&words, address, pointer), None);
    }
}
