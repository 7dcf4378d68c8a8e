//! What the running kernel says of its own types: BTF, by a small reader.
//!
//! BPF programs in Rust have no CO-RE relocations, so where a field lies in a
//! structure of the kernel is looked up here, and handed to them as a global.
//! What is not found is `None`, and only what needs it is left out.
//!
//! | file | concern |
//! |---|---|
//! | `format` | the bytes: header, kinds, layouts |
//! | `table` | finds types and strings by number |
//! | `query` | answers: sizes, offsets, arguments |
//!
//! The kernel's own word is not doubted, but a file that is given in its place
//! may be rotten: all is bounded, nothing panics.

pub(crate) mod format;
mod query;
mod table;

pub use query::{Argument, ArgumentKind, Member};
pub use table::Btf;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

/// Where the kernel shows its types, and those of its modules.
const DIRECTORY: &str = "/sys/kernel/btf";
/// BTF that is larger is not read; a distribution's kernel has 5 MiB.
const MOST_BYTES: u64 = 64 << 20;

/// Why there is no BTF.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file cannot be read: the kernel was built without, or hides it.
    #[error("cannot read {0}: {1}")]
    Read(String, io::Error),
    /// It is not BTF of this machine's byte order.
    #[error("not BTF of this machine")]
    NotBtf,
    /// More than leakd is ready to read.
    #[error("BTF of more than {} MiB", MOST_BYTES >> 20)]
    TooLarge,
    /// A type of a kind that came after this program.
    #[error("BTF has a type of kind {0}, which leakd does not know")]
    UnknownKind(u32),
    /// Contradicts itself.
    #[error("damaged BTF: {0}")]
    Damaged(&'static str),
}

impl Btf {
    /// The types of the running kernel.
    ///
    /// # Errors
    /// If the kernel shows none (`CONFIG_DEBUG_INFO_BTF`), or shows rubbish.
    pub fn of_kernel() -> Result<Self, BtfError> {
        Self::parse(read(&Path::new(DIRECTORY).join("vmlinux"))?)
    }

    /// The types of a module that is loaded, upon those of the kernel.
    ///
    /// # Errors
    /// If there is no such module, or it was built without.
    pub fn of_module(kernel: &Arc<Self>, name: &str) -> Result<Self, BtfError> {
        if name.is_empty() || name.contains(['/', '.', '\0']) {
            return Err(BtfError::Read(name.to_owned(), io::ErrorKind::InvalidInput.into()));
        }
        Self::parse_upon(kernel, read(&Path::new(DIRECTORY).join(name))?)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, BtfError> {
    let failed = |error| BtfError::Read(path.display().to_string(), error);
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len().min(MOST_BYTES);
    let mut bytes = Vec::with_capacity(size as usize + 1);
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MOST_BYTES { Err(BtfError::TooLarge) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests;
