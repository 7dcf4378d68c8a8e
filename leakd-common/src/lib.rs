//! Types that cross the boundary between leakd's BPF programs and user space.
//!
//! Every type here is `#[repr(C)]`, fixed-width and free of padding, and its
//! layout is pinned by a const assertion: the BPF object and the program that
//! loads it are built by two compilers.
#![no_std]

pub mod bad_free;
pub mod block;
pub mod cookie;
pub mod event;
pub mod kernel;
pub mod page_fault;
pub mod site;
pub mod target;
pub mod thread;
pub mod unwind;

/// Marks types as plain data for aya and pins their size in bytes.
macro_rules! plain_data {
    ($($type:ty = $size:literal),+ $(,)?) => {$(
        const _: () = assert!(core::mem::size_of::<$type>() == $size);
        // SAFETY: `repr(C)`, made of integers and arrays of them only, and
        // without padding, as the size above shows: every bit pattern is valid.
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $type {}
    )+};
}
pub(crate) use plain_data;
