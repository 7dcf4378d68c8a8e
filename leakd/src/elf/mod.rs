//! Bounded reading of ELF files that anybody may have written.
//!
//! Files are read with pread(2), never mapped: whoever owns the file may cut
//! it short at any moment, and a mapping would answer that with SIGBUS.
//! Every count and size is checked against a limit before memory is taken for
//! it, sums are checked, and each operation ends at a deadline.

mod build_id;
mod error;
mod identity;
mod object;
mod relocation;
mod source;
mod symbol;

pub use build_id::BuildId;
pub use error::ElfError;
pub use identity::FileIdentity;
pub use object::{ElfObject, FileType, Machine, Segment};
pub use symbol::{Binding, FunctionSymbol};

#[cfg(test)]
pub(crate) mod test_program;
#[cfg(test)]
mod tests;
