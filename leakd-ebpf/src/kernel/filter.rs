//! What is not to be traced: the way out of most programs when only one cache
//! is asked for, so it comes first and costs little.

use crate::support::opaque;
use aya_ebpf::{
    Global,
    btf_maps::{Array, HashMap},
    helpers::generated as helper,
    macros::btf_map,
};
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

/// What was found out about a cache by its address: 1 wanted, 0 not.
#[btf_map]
static CACHES: HashMap<u64, u32, 4096> = HashMap::new();

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
    // SAFETY: the value is copied at once.
    match unsafe { CACHES.get(cache).copied() } {
        Some(verdict) => verdict != 0,
        None => judge(cache),
    }
}

/// As [`wants_cache`]; of a cache that is not known nothing is in the ledger.
#[inline(always)]
pub fn may_hold(cache: u64) -> bool {
    // SAFETY: the value is copied at once.
    !is_by_cache() || unsafe { CACHES.get(cache).copied() } == Some(1)
}

#[inline(always)]
fn judge(cache: u64) -> bool {
    let mut name: Name = [0; CACHE_NAME / 8];
    read_name(cache, &mut name);
    let hash = opaque(cache_name_hash(&name));
    let mut wanted = 0;
    for index in 0..WANTED_CACHES as u32 {
        if WANTED_NAMES.get(index) == Some(&hash) {
            wanted = 1;
        }
    }
    let _ = CACHES.insert(cache, wanted, 0);
    wanted != 0
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
