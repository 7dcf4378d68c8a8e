//! What is not to be traced: the way out of most programs when only one cache
//! is asked for, so it comes first and costs little.

use crate::support::opaque;
use aya_ebpf::{Global, btf_maps::Array, helpers::generated as helper, macros::btf_map};
use core::ffi::c_void;
use leakd_common::kernel::{CACHE_NAME, WANTED_CACHES, cache_name_hash};

/// Where `struct kmem_cache` has its `name` and `size`: by the kernel's types.
#[unsafe(no_mangle)]
static CACHE_NAME_OFFSET: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static CACHE_SIZE_OFFSET: Global<u32> = Global::new(0);
/// Blocks outside of these bounds are left out, in bytes.
#[unsafe(no_mangle)]
static LEAST_BYTES: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static MOST_BYTES: Global<u64> = Global::new(u64::MAX);
/// 1: only caches whose name has one of [`WANTED_NAMES`].
#[unsafe(no_mangle)]
static BY_CACHE: Global<u32> = Global::new(0);

/// Hashes of the names of wanted caches; 0: none.
#[btf_map]
static WANTED_NAMES: Array<u64, WANTED_CACHES> = Array::new();

/// What was found out about caches: the address of a `struct kmem_cache`, with bit
/// 0 set if it is wanted, at a place that the address makes. One that two share is
/// found out anew each time. An array: the kernel makes a few instructions of the
/// lookup, and of one in a hash map a call.
#[btf_map]
static VERDICTS: Array<u64, { 1 << VERDICTS_LOG2 }> = Array::new();

const VERDICTS_LOG2: u32 = 10;
/// Spreads addresses over places (Knuth, multiplicative hashing).
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// Bytes of a cache's name, as words.
pub type Name = [u64; CACHE_NAME / 8];

/// Whether blocks of this size are wanted.
#[inline(always)]
pub fn wants_size(bytes: u64) -> bool {
    bytes >= LEAST_BYTES.load() && bytes <= MOST_BYTES.load()
}

/// Whether only some caches are wanted.
#[inline(always)]
pub fn is_by_cache() -> bool {
    BY_CACHE.load() != 0
}

/// Whether blocks of this cache are wanted.
#[inline(always)]
pub fn wants_cache(cache: u64) -> bool {
    if !is_by_cache() {
        return true;
    }
    let place = (cache.wrapping_mul(SPREAD) >> (64 - VERDICTS_LOG2)) as u32;
    let Some(verdict) = VERDICTS.get_ptr_mut(place) else { return true };
    // SAFETY: an aligned word of a map's value; it is read and written whole, so
    // that whoever else writes it leaves a verdict that is right.
    let known = unsafe { verdict.read_volatile() };
    if known & !1 == cache {
        return known & 1 != 0;
    }
    let wanted = is_named(cache);
    // SAFETY: as above.
    unsafe { verdict.write_volatile(cache & !1 | u64::from(wanted)) };
    wanted
}

/// Whether a cache has a wanted name.
#[inline(always)]
fn is_named(cache: u64) -> bool {
    let mut name: Name = [0; CACHE_NAME / 8];
    read_name(cache, &mut name);
    let hash = opaque(cache_name_hash(&name));
    let mut wanted = false;
    for index in 0..WANTED_CACHES as u32 {
        wanted |= WANTED_NAMES.get(index) == Some(&hash);
    }
    wanted
}

/// Reads a cache's name; what is behind it stays as it was.
#[inline(always)]
pub fn read_name(cache: u64, name: *mut Name) {
    if let Some(text) = read::<u64>(cache + u64::from(CACHE_NAME_OFFSET.load())) {
        // SAFETY: the helper writes at most CACHE_NAME bytes, the last one a 0.
        unsafe {
            helper::bpf_probe_read_kernel_str(
                name.cast::<c_void>(),
                CACHE_NAME as u32,
                text as *const c_void,
            );
        }
    }
}

/// What a block of a cache takes, in bytes; 0 where that cannot be read.
#[inline(always)]
pub fn block_bytes(cache: u64) -> u64 {
    read::<u32>(cache + u64::from(CACHE_SIZE_OFFSET.load())).map_or(0, u64::from)
}

/// Reads the kernel's memory.
#[inline(always)]
pub fn read<T: Copy + Default>(address: u64) -> Option<T> {
    let mut value = T::default();
    // SAFETY: the helper writes size_of::<T>() bytes to `value`; T is an integer
    // at every call.
    let status = unsafe {
        helper::bpf_probe_read_kernel(
            (&raw mut value).cast::<c_void>(),
            size_of::<T>() as u32,
            address as *const c_void,
        )
    };
    (status == 0).then_some(value)
}
