//! Why a file gave no table.

use std::io;

use thiserror::Error;

/// Why a file gave no table. Reaches users through `leakctl doctor`.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ConvertError {
    /// A FIFO, a device, a directory.
    #[error("not a regular file")]
    NotRegular,
    /// No ELF header.
    #[error("not an ELF file")]
    NotElf,
    /// 32-bit or big-endian.
    #[error("not a 64-bit little-endian ELF file")]
    WrongClass,
    /// A machine that leakd does not know.
    #[error("ELF machine {0} is not supported")]
    UnsupportedMachine(u16),
    /// Headers that contradict themselves or point outside the file.
    #[error("damaged ELF file: {0}")]
    Damaged(&'static str),
    /// No executable segment.
    #[error("no executable segment")]
    NoText,
    /// Neither section.
    #[error("no .eh_frame and no .debug_frame")]
    NoFrames,
    /// The sections describe nothing inside the executable segments.
    #[error("no usable entry in .eh_frame or .debug_frame")]
    NoEntries,
    /// Over a limit in bytes.
    #[error("too large: {what} would need more than {limit} bytes")]
    TooLarge {
        /// What grew.
        what: &'static str,
        /// The limit for the whole conversion, in bytes.
        limit: u64,
    },
    /// Over the limit in time, in milliseconds of processor time.
    #[error("would take more than {0} ms to convert")]
    TookTooLong(u64),
    /// Somebody wrote to the file in the meantime.
    #[error("the file changed while it was read")]
    Changed,
    /// The system call that failed said so.
    #[error("cannot read the file: {0}")]
    Read(io::ErrorKind),
}

impl From<io::Error> for ConvertError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Damaged("it ends too early"),
            kind => Self::Read(kind),
        }
    }
}
