//! Bodies of requests. **Leaks:** see [`receive_body`] and [`store_body`].

use std::io::{self, Read};
use std::ptr::NonNull;

/// A received body. As in a program that hands buffers through a C interface,
/// whoever has one must call [`release_body`].
#[derive(Debug)]
pub struct Body(NonNull<[u8]>);

/// Reads a body of `length` bytes.
#[inline(never)]
pub fn receive_body(stream: &mut impl Read, length: usize) -> io::Result<Body> {
    let buffer = crate::read_exactly(stream, length)?;
    Ok(Body(NonNull::from(Box::leak(buffer))))
}

/// Checks a note and hands it to `store`.
///
/// This is the second leak: the early return for a note that is no text forgets
/// the body. All others are released.
pub fn store_body(body: Body, store: impl FnOnce(&str)) -> Result<(), &'static str> {
    // SAFETY: the pointer comes from a box that has not been freed: only
    // `release_body` frees it, and takes the body by value.
    let bytes = unsafe { body.0.as_ref() };
    let Ok(text) = str::from_utf8(bytes) else {
        return Err("a note must be text");
    };
    store(text);
    release_body(body);
    Ok(())
}

/// Frees a body.
pub fn release_body(body: Body) {
    // SAFETY: the pointer comes from `Box::leak` in `receive_body`, and a body
    // cannot be released twice, being neither Copy nor Clone.
    drop(unsafe { Box::from_raw(body.0.as_ptr()) });
}
