//! Names for addresses.

mod address;
pub use address::{CodeAddress, Frame, Lookup, Object, ObjectKey, ObjectRef};
