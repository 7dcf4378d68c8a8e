//! The few things that the BPF target lacks, or that the verifier wants
//! spelled in one way.

use aya_ebpf::{bindings::pt_regs, helpers::generated as helper};
use core::{ffi::c_void, mem::MaybeUninit};

/// Adds to a counter that other CPUs, or a program that preempted this one,
/// may be adding to.
#[inline(always)]
pub unsafe fn add(counter: *mut u64, value: u64) {
    use core::intrinsics::{AtomicOrdering, atomic_xadd};
    // SAFETY: the caller hands a pointer into a map value, aligned to 8.
    unsafe {
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, value);
    }
}

/// Hides a value from the optimizer. LLVM infers the range of what a global
/// function returns and drops the checks that the verifier insists on.
#[inline(always)]
pub fn opaque<T>(value: T) -> T {
    core::hint::black_box(value)
}

/// Reads user memory; `None` where it is not mapped, or not resident.
#[inline(always)]
pub fn read_user<T: Copy>(address: u64) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes at most size_of::<T>() bytes to `value` and
    // fills it wholly when it returns 0; T is plain data at every call.
    unsafe {
        let status = helper::bpf_probe_read_user(
            value.as_mut_ptr().cast::<c_void>(),
            size_of::<T>() as u32,
            address as *const c_void,
        );
        (status == 0).then(|| value.assume_init())
    }
}

/// Looks a key up in a map, whichever kind it is.
#[inline(always)]
pub fn lookup<K, V>(map: *const c_void, key: &K) -> Option<*mut V> {
    // SAFETY: the helper reads a key of the map's key size; each caller pairs
    // map and key type.
    let value = unsafe {
        helper::bpf_map_lookup_elem(map.cast_mut(), core::ptr::from_ref(key).cast::<c_void>())
    };
    if value.is_null() { None } else { Some(value.cast::<V>()) }
}

/// Registers of the interrupted user code.
#[derive(Clone, Copy)]
pub struct Registers(*const pt_regs);

impl Registers {
    /// The context of a uprobe program is the register set.
    #[inline(always)]
    pub fn new(context: *mut c_void) -> Self {
        Self(context.cast::<pt_regs>())
    }

    /// The instruction pointer.
    #[inline(always)]
    pub fn instruction(self) -> u64 {
        // SAFETY: the kernel hands a valid register set to each program.
        unsafe { (*self.0).rip }
    }

    /// The stack pointer.
    #[inline(always)]
    pub fn stack(self) -> u64 {
        // SAFETY: as above.
        unsafe { (*self.0).rsp }
    }

    /// The frame pointer.
    #[inline(always)]
    pub fn frame_pointer(self) -> u64 {
        // SAFETY: as above.
        unsafe { (*self.0).rbp }
    }

    /// What the function returned; valid at its return.
    #[inline(always)]
    pub fn result(self) -> u64 {
        // SAFETY: as above.
        unsafe { (*self.0).rax }
    }

    /// An integer argument, counted from 1 (System V ABI); 0 for no such.
    ///
    /// The verifier refuses a context pointer with a computed offset, which is
    /// what LLVM makes of a choice between fields: the registers are read
    /// first, then chosen from.
    #[inline(always)]
    pub fn argument(self, number: u8) -> u64 {
        use core::ptr::read_volatile;
        // SAFETY: as above.
        let (first, second, third, fourth, fifth, sixth) = unsafe {
            (
                read_volatile(&raw const (*self.0).rdi),
                read_volatile(&raw const (*self.0).rsi),
                read_volatile(&raw const (*self.0).rdx),
                read_volatile(&raw const (*self.0).rcx),
                read_volatile(&raw const (*self.0).r8),
                read_volatile(&raw const (*self.0).r9),
            )
        };
        match number {
            1 => first,
            2 => second,
            3 => third,
            4 => fourth,
            5 => fifth,
            6 => sixth,
            _ => 0,
        }
    }

    /// At a function's entry: the address that holds its return address.
    #[inline(always)]
    pub fn frame_at_entry(self) -> u64 {
        self.stack()
    }

    /// At a function's return: the address that held its return address.
    #[inline(always)]
    pub fn frame_at_return(self) -> u64 {
        self.stack().wrapping_sub(8)
    }
}
