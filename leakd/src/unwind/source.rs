//! What a table is made from, and why there may be none.

use std::fs::File;
use std::io;
use std::sync::Arc;

use leakd_common::unwind::TABLES;
use thiserror::Error;

use crate::elf::FileIdentity;
use crate::unwind::ConvertError;

/// What a table is made from, as far as telling tables apart goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TableKey {
    /// A file.
    File(FileIdentity),
    /// The kernel's vdso.
    Vdso,
}

/// What a table is made from.
#[derive(Clone, Debug)]
pub enum TableSource {
    /// A file, open for reading.
    File(FileIdentity, Arc<File>),
    /// The kernel's vdso.
    Vdso,
}

impl TableSource {
    /// The key of this source.
    pub fn key(&self) -> TableKey {
        match self {
            Self::File(identity, _) => TableKey::File(*identity),
            Self::Vdso => TableKey::Vdso,
        }
    }

    /// Bytes of the file.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::File(identity, _) => identity.size,
            Self::Vdso => 0,
        }
    }
}

/// Why there is no table.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NoTable {
    /// There will be one, or another reason.
    #[error("it is still being made")]
    BeingMade,
    /// The file gave none.
    #[error(transparent)]
    Convert(#[from] ConvertError),
    /// The tables in use, or those of this process, leave no room.
    #[error("unwind tables already take the {limit} bytes that they may")]
    NoMemory {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The process's other files took all the time that there was.
    #[error("no time left after the process's other files")]
    NoTime,
    /// As many tables are in use as there can be.
    #[error("all {TABLES} unwind tables are in use")]
    NoNumber,
    /// The kernel refused.
    #[error("cannot load an unwind table into the kernel: {0}")]
    Kernel(io::ErrorKind),
    /// No thread, or one that panicked.
    #[error("leakd itself failed to make it")]
    Internal,
}
