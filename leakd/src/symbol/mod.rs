//! Names for addresses.
//!
//! The caller says what each address is while the process lives: an offset in
//! a file that it holds open ([`CodeAddress::File`]), code that a runtime made
//! ([`CodeAddress::Jit`]), or nothing known. [`Symbolizer`] names them on a
//! thread of its own, also after the process has gone.
//!
//! What is read here is written by whoever wants to: `prepare.rs` says what is
//! done about files that an ordinary user could have written, `worker.rs` what
//! about those that keep their reader busy.

mod address;
mod demangle;
mod names;
mod perf_map;
mod prepare;
mod symbolizer;
mod worker;

pub use address::{CodeAddress, Frame, Lookup, Object, ObjectRef};
pub use demangle::{NAME_LIMIT, demangle};
pub use names::unnamed_frame;
pub use symbolizer::Symbolizer;

#[cfg(test)]
mod tests;
