//! Where the return addresses of a stack lie on it.

use super::{INDEX_BITS, Remembered, SLOTS, TASK_STACK_OFFSET, THREAD_BYTES, WORDS, finish};
use crate::{filter::read, stack::Stack, support::opaque};
use aya_ebpf::helpers::generated as helper;
use core::ffi::c_void;
use leakd_common::kernel::{KERNEL_FRAMES, mix};

/// Frames that may lie below the tracepoint's arguments: those of the program
/// and of what runs it, the same each time.
const FRAMES_BELOW: u64 = 4;
/// Words that one function looks at.
const PART: u64 = 32;
const PARTS: u64 = WORDS as u64 / PART;
/// Bytes in a page. The stack of interrupts ends with one.
const PAGE_BYTES: u64 = 4096;
/// The upper half of addresses of the kernel's code and its modules': the last 2 GiB.
const CODE: u64 = 0xffff_ffff;

/// Room to look at a stack. What a function would have as variables is in here, too,
/// where the verifier does not follow each value of it.
#[repr(C)]
pub struct Room {
    /// The tracepoint's arguments.
    pub arguments: *mut c_void,
    /// Hash of the words in the slots.
    pub check: u64,
    /// Slots in use, and those that found no room.
    pub count: u64,
    /// As in [`Remembered`].
    pub slots: [u16; SLOTS],
    /// A bit for each frame that has a slot.
    found: u64,
    /// A bit for each that had one.
    had: u64,
    /// The frame that a word is, and one more; 0: none.
    frame: u64,
    /// Bytes of the words that are in use.
    bytes: u64,
    words: [u64; WORDS],
}

impl Room {
    #[inline(always)]
    fn clear(&mut self) {
        (self.check, self.count, self.found, self.had) = (0, 0, 0, 0);
    }

    #[inline(always)]
    fn push(&mut self, slot: u16, word: u64) {
        let index = self.count;
        self.count = index + 1;
        self.check = mix(self.check, word);
        if index < SLOTS as u64 {
            // SAFETY: below SLOTS.
            unsafe { *(&raw mut self.slots).cast::<u16>().add(index as usize) = slot };
        }
    }
}

/// The slot at an index below SLOTS.
#[inline(always)]
pub fn at(slots: &[u16; SLOTS], index: usize) -> u16 {
    // SAFETY: the caller has compared the index; the verifier checks it.
    unsafe { *slots.as_ptr().add(index) }
}

/// The address of a slot's word.
#[inline(always)]
pub fn place(arguments: u64, slot: u16) -> u64 {
    arguments + u64::from(slot) % WORDS as u64 * 8
}

/// A frame of a stack, by an index below KERNEL_FRAMES.
#[inline(always)]
fn frame(stack: &Stack, index: usize) -> u64 {
    // SAFETY: the caller has compared the index; the verifier checks it.
    unsafe { *stack.frames.as_ptr().add(index) }
}

/// Finds all words of the stack that are like a frame of it; 0 if not each frame has
/// one: its own may then lie where it was not looked for.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn find_slots(
    room: *mut Room,
    stack: *const Stack,
    arguments: u64,
    depth: u64,
) -> u64 {
    if room.is_null() || stack.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier checks that it is whole.
    let room = unsafe { &mut *room };
    let bytes = bytes_above(arguments);
    if bytes == 0 || bytes > size_of_val(&room.words) as u64 {
        return 0;
    }
    // SAFETY: no more bytes than there is room for.
    let status = unsafe {
        helper::bpf_probe_read_kernel(
            (&raw mut room.words).cast::<c_void>(),
            bytes as u32,
            arguments as *const c_void,
        )
    };
    if status != 0 {
        return 0;
    }
    room.clear();
    room.bytes = bytes;
    let mut part = 0;
    while part < PARTS {
        opaque(take_words(room, stack, part * PART, depth));
        part += 1;
    }
    let frames = if depth < 64 { (1 << depth) - 1 } else { u64::MAX };
    let own = (1 << FRAMES_BELOW) - 1;
    let has_each = (room.found | own) & frames == frames;
    u64::from(has_each && depth > FRAMES_BELOW && room.count <= SLOTS as u64)
}

/// Makes slots of those of the next words that are like a frame. A global function, as
/// [`take_word`] is: the verifier follows each turn of a loop, but looks only once at
/// such a function.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn take_words(room: *mut Room, stack: *const Stack, from: u64, depth: u64) -> u64 {
    if room.is_null() {
        return 0;
    }
    let mut turn = 0;
    while turn < PART {
        let index = from + turn;
        // SAFETY: not null, and the verifier checks that it is whole.
        if index >= unsafe { (*room).bytes } / 8 {
            break;
        }
        // The verifier does not see that it is below.
        let index = opaque(index) % WORDS as u64;
        // SAFETY: as above, and below WORDS.
        let word = unsafe { *(&raw const (*room).words).cast::<u64>().add(index as usize) };
        if word >> 32 == CODE {
            opaque(take_word(room, stack, index, depth));
        }
        turn += 1;
    }
    0
}

/// Makes a slot of a word if it is like a frame.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn take_word(room: *mut Room, stack: *const Stack, index: u64, depth: u64) -> u64 {
    if room.is_null() || stack.is_null() || index >= WORDS as u64 {
        return 0;
    }
    // SAFETY: not null, and the verifier checks that they are whole.
    let (room, stack) = unsafe { (&mut *room, &*stack) };
    // SAFETY: below WORDS.
    let word = unsafe { *room.words.as_ptr().add(index as usize) };
    room.frame = 0;
    let mut number = 0;
    while number < KERNEL_FRAMES && (number as u64) < opaque(depth) {
        if frame(stack, number) == word {
            room.found |= 1 << number;
            room.frame = number as u64 + 1;
        }
        number += 1;
    }
    if room.frame != 0 {
        room.push((index | (room.frame - 1) << INDEX_BITS) as u16, word);
    }
    0
}

/// Keeps the slots that hold their frames now, too, though others do not: the walk
/// was the same, so those held old words. 0 if a frame has none then, and so has gone
/// elsewhere, or if the slots are not of one writer.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn keep_slots(
    room: *mut Room,
    stack: *const Stack,
    arguments: u64,
    remembered: *const Remembered,
) -> u64 {
    if room.is_null() || stack.is_null() || remembered.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier checks that they are whole.
    let (room, stack, remembered) = unsafe { (&mut *room, &*stack, &*remembered) };
    let (key, hash, count) = (remembered.key, remembered.hash, remembered.count);
    room.clear();
    // The check as it must be, by the frames that the slots are of.
    let mut check = 0;
    let mut index = 0;
    while index < SLOTS && (index as u64) < opaque(count) {
        let slot = at(&remembered.slots, index);
        let number = slot >> INDEX_BITS;
        let expected = frame(stack, usize::from(number) % KERNEL_FRAMES);
        check = mix(check, expected);
        let Some(word) = read::<u64>(place(arguments, slot)) else { return 0 };
        room.had |= 1 << (number % 64);
        if word == expected {
            room.found |= 1 << (number % 64);
            room.push(slot, word);
        }
        index += 1;
    }
    let is_whole = finish(check, key, hash, count) == remembered.check;
    u64::from(is_whole && room.found == room.had)
}

/// Bytes from here to the end of the stack; 0: not known.
#[inline(always)]
fn bytes_above(address: u64) -> u64 {
    // SAFETY: the helper has no preconditions.
    let task = unsafe { helper::bpf_get_current_task() };
    let Some(stack) = read::<u64>(task + u64::from(TASK_STACK_OFFSET.load())) else { return 0 };
    if address.wrapping_sub(stack) < THREAD_BYTES {
        return stack + THREAD_BYTES - address;
    }
    // An interrupt's: its last word says where it was on the task's (call_on_stack of
    // asm/irq_stack.h).
    let bytes = PAGE_BYTES - address % PAGE_BYTES;
    match read::<u64>(address + bytes - 8) {
        Some(interrupted) if interrupted.wrapping_sub(stack) < THREAD_BYTES => bytes,
        _ => 0,
    }
}
