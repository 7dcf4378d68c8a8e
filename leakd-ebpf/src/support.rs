//! The few things that the BPF target lacks, or that the verifier wants
//! spelled in one way.

use aya_ebpf::helpers::generated as helper;
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
