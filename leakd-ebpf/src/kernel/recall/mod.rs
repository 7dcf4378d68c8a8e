//! Stacks that were walked before, known again without a walk.
//!
//! The kernel's unwinder takes more than a microsecond; most allocations come by a
//! few hundred ways. A stack that was walked is remembered by where on it its
//! return addresses lie. When the same tracepoint comes at the same depth of a stack,
//! and all these words are what they were, it is the same stack: the place of a
//! function's return address follows from that of the function it called, whose frame
//! is as large each time, so that the first one that is another would be read here,
//! too. Old return addresses lie about on a stack: so each word that is like one of the
//! walked is remembered, wherever it is. When the same walk comes again and some of
//! them are others by then, those were old ones, and are forgotten.
//!
//! Frames of a size that changes (an alloca, an aligned stack) could deceive this only
//! if old words stood in all places that matter. So one stack in a thousand is walked
//! all the same, and compared; what comes of it is counted.

mod slots;

use crate::{filter::read, ledger::count, stack::Walked, support::opaque};
use aya_ebpf::{
    Global,
    btf_maps::{Array, PerCpuArray},
    helpers::generated as helper,
    macros::btf_map,
};
use core::ffi::c_void;
use leakd_common::{
    kernel::{KERNEL_FRAMES, mix},
    target::Counter,
};
use slots::{Room, find_slots, keep_slots};

/// Words of a stack that are looked at: of a deeper one nothing is remembered.
const WORDS: usize = 1 << INDEX_BITS;
/// Bits of a slot that say which word it is.
const INDEX_BITS: u32 = 9;
/// Words of a stack that are remembered, at most.
const SLOTS: usize = 48;
/// log2 of the stacks that are remembered.
const STACKS_LOG2: u32 = 14;
/// A task's stack is aligned to so many bytes, at least.
const THREAD_BYTES: u64 = 16 << 10;
/// Where the number of the system call lies below the end of a task's stack: the last
/// but five of the registers (struct pt_regs of x86-64).
const SYSTEM_CALL: u64 = 48;
/// One in so many is walked all the same. A power of two.
const CHECKED: u64 = 1024;
/// A place that is taken is given away one time in so many, or two stacks at one place
/// would each cost the other its place each time. A power of two.
const GIVEN_AWAY: u32 = 16;
/// Programs that remember: those of the most frequent tracepoints.
const REMEMBERING: u32 = 3;

/// Where `struct task_struct` has its `stack`; 0: not known, nothing is remembered.
#[unsafe(no_mangle)]
static TASK_STACK_OFFSET: Global<u32> = Global::new(0);

/// A stack that was walked.
#[repr(C)]
pub struct Remembered {
    /// Of the tracepoint and the depth of its stack; 0: none.
    key: u64,
    /// Hash of all below and of the words in the slots: what two CPUs make that write
    /// here at the same time is never found.
    check: u64,
    /// What the walk came to; 0: this cannot be remembered.
    hash: u64,
    /// Slots in use.
    count: u64,
    /// Where the words lie, in words from the tracepoint's arguments on; above
    /// [`INDEX_BITS`], which frame the word is.
    slots: [u16; SLOTS],
}

const _: () = assert!(size_of::<Remembered>() == 128, "two cache lines");
const _: () = assert!(KERNEL_FRAMES <= 1 << (16 - INDEX_BITS) && KERNEL_FRAMES <= 64);

/// What is remembered, at the place that the key makes.
#[btf_map]
static REMEMBERED: Array<Remembered, { 1 << STACKS_LOG2 }> = Array::new();

/// Room for each program; one cannot be interrupted by itself.
#[btf_map]
static ROOMS: PerCpuArray<Room, { REMEMBERING as usize }> = PerCpuArray::new();

/// A way by which an allocation came, as far as can be said without a walk.
#[derive(Clone, Copy)]
pub struct Way {
    room: *mut Room,
    /// Address of the tracepoint's arguments: on the stack of whom it came to.
    arguments: u64,
    key: u64,
}

impl Way {
    /// The way that led to a program. `seed` says what it is that was allocated.
    #[inline(always)]
    pub fn of(context: *mut c_void, walker: u32, seed: u64, call_site: u64) -> Option<Self> {
        if TASK_STACK_OFFSET.load() == 0 || walker >= REMEMBERING {
            return None;
        }
        let room = ROOMS.get_ptr_mut(walker)?;
        // Read back, the verifier takes the pointer for a number.
        // SAFETY: this program's own room.
        let arguments = unsafe {
            (&raw mut (*room).arguments).write_volatile(context);
            (&raw const (*room).arguments).cast::<u64>().read_volatile()
        };
        let key = mix(mix(seed, call_site), arguments % THREAD_BYTES);
        // The kernel moves the stack by chance at each system call, so that another one's
        // may come at the same depth; elsewhere this is some word or other.
        let end = (arguments | (THREAD_BYTES - 1)) + 1;
        let call = read::<u64>(end - SYSTEM_CALL).unwrap_or_default();
        let key = mix(key, call) | 1;
        Some(Self { room, arguments, key })
    }

    /// The hash of the stack; 0: it must be walked.
    #[inline(always)]
    pub fn recall(self) -> u64 {
        opaque(recall(self.arguments, self.key))
    }

    /// Whether what was recalled is to be walked, too.
    #[inline(always)]
    pub fn is_checked(self, now_ns: u64) -> bool {
        mix(self.key, now_ns).is_multiple_of(CHECKED)
    }

    /// Counts what a walk has shown of what was recalled.
    #[inline(always)]
    pub fn checked(self, is_right: bool) {
        if is_right {
            count(Counter::StacksConfirmed);
        } else {
            count(Counter::StacksMistaken);
            if let Some(remembered) = REMEMBERED.get_ptr_mut(place(self.key)) {
                // SAFETY: an aligned word of a map's value.
                unsafe { (&raw mut (*remembered).key).write_volatile(0) };
            }
        }
    }

    /// Remembers a stack that was walked.
    #[inline(always)]
    pub fn remember(self, walked: Walked) {
        let Walked { stack, depth, hash } = walked;
        let Some(remembered) = REMEMBERED.get_ptr_mut(place(self.key)) else { return };
        // SAFETY: a value of an array.
        let (key, known) = unsafe { ((*remembered).key, (*remembered).hash) };
        let room = self.room;
        let done = if key == self.key && known == hash {
            keep_slots(room, stack, self.arguments, remembered)
        // SAFETY: the helper has no preconditions.
        } else if key == 0 || unsafe { helper::bpf_get_prandom_u32() } % GIVEN_AWAY == 0 {
            find_slots(room, stack, self.arguments, depth.into())
        } else {
            return;
        };
        // What cannot be remembered takes a place, too, or each time would look for it.
        let hash = if opaque(done) != 0 { hash } else { 0 };
        // SAFETY: both are values of maps that outlive the program; who reads while
        // this is written finds that `check` does not fit.
        unsafe {
            (&raw mut (*remembered).key).write_volatile(0);
            (*remembered).slots = (*room).slots;
            (*remembered).count = (*room).count;
            (*remembered).hash = hash;
            (*remembered).check = finish((*room).check, self.key, hash, (*room).count);
            (&raw mut (*remembered).key).write_volatile(self.key);
        }
    }
}

/// The place of a key.
#[inline(always)]
fn place(key: u64) -> u32 {
    (key >> (64 - STACKS_LOG2)) as u32
}

/// The check over all, from that over the words.
#[inline(always)]
fn finish(words: u64, key: u64, hash: u64, count: u64) -> u64 {
    mix(mix(mix(words, key), hash), count)
}

/// The hash of the stack that is remembered under a key, if this is it; 0: no. A
/// global function: the verifier looks at it once.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn recall(arguments: u64, key: u64) -> u64 {
    let Some(remembered) = REMEMBERED.get_ptr_mut(place(key)) else { return 0 };
    // SAFETY: a value of an array.
    let remembered = unsafe { &*remembered };
    if remembered.key != key {
        return 0;
    }
    let (hash, count) = (remembered.hash, remembered.count);
    let mut check = 0;
    let mut index = 0;
    while index < SLOTS && (index as u64) < opaque(count) {
        let slot = slots::at(&remembered.slots, index);
        let Some(word) = read::<u64>(slots::place(arguments, slot)) else { return 0 };
        check = mix(check, word);
        index += 1;
    }
    if finish(check, key, hash, count) == remembered.check { hash } else { 0 }
}
