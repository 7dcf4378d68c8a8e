//! What can be wrong with an ELF file.

use std::io;

/// Why an ELF file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// The file cannot be read.
    #[error("cannot read the file: {0}")]
    Read(#[from] io::Error),
    /// A directory, FIFO, socket or device.
    #[error("not a regular file")]
    NotRegular,
    /// Empty, or without ELF's magic number.
    #[error("not an ELF file")]
    NotElf,
    /// A 32-bit file.
    #[error("a 32-bit ELF file; leakd reads 64-bit ones")]
    Not64Bit,
    /// A file for a machine of the other byte order.
    #[error("a big-endian ELF file; leakd reads little-endian ones")]
    BigEndian,
    /// A file for a machine that leakd knows nothing of (`e_machine`).
    #[error("an ELF file for machine {0}; leakd knows x86-64 (62) and aarch64 (183)")]
    Machine(u16),
    /// Headers contradict each other or the file's size.
    #[error("damaged ELF file: {0}")]
    Damaged(&'static str),
    /// More of something than leakd is ready to read.
    #[error("ELF file has {count} {what}; leakd reads at most {limit}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much the file claims to have.
        count: u64,
        /// How much is read at most.
        limit: u64,
    },
    /// Reading took longer than it may.
    #[error("reading the ELF file took longer than {0:?}")]
    Deadline(std::time::Duration),
}
