//! Plain data as bytes and back.

use aya::Pod;

/// The bytes of a value.
pub fn bytes_of<T: Pod>(value: &T) -> &[u8] {
    // SAFETY: T is Pod (leakd_common: integers only, no padding), so each of its
    // bytes is initialized; the slice borrows the value.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), size_of::<T>()) }
}

/// Reads a value from the front of `bytes`.
///
/// # Panics
/// If there are too few: a fault of the caller, who sizes the buffers.
pub fn read<T: Pod>(bytes: &[u8]) -> T {
    assert!(bytes.len() >= size_of::<T>(), "{} bytes for a value", bytes.len());
    // SAFETY: there are enough bytes, any bytes make a valid T, and the read
    // does not ask for alignment.
    unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast::<T>()) }
}
