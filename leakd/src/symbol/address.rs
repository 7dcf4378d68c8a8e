//! Where code is, and what it is called.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::elf::FileIdentity;

/// An ELF file that code was mapped from, held open: it can still be read
/// when its path has gone, and its process too.
#[derive(Debug)]
pub struct Object {
    file: File,
    path: PathBuf,
    identity: FileIdentity,
}

/// A shared [`Object`]: one for each file, whatever the number of processes
/// that map it.
pub type ObjectRef = Arc<Object>;

impl Object {
    /// Holds an open file. `path` is the name for people (as the process sees
    /// it).
    ///
    /// # Errors
    /// If the file cannot be asked for its identity, or is no regular file.
    pub fn new(file: File, path: impl Into<PathBuf>) -> io::Result<ObjectRef> {
        let identity = FileIdentity::of(&file)?;
        Self::identified(file, identity, path)
    }

    /// The same for a file whose identity is known.
    ///
    /// # Errors
    /// If it is no regular file.
    pub fn identified(
        file: File,
        identity: FileIdentity,
        path: impl Into<PathBuf>,
    ) -> io::Result<ObjectRef> {
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Arc::new(Self { file, path: path.into(), identity }))
    }

    /// The name for people; it need not lead to the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's identity when it was opened.
    pub fn identity(&self) -> &FileIdentity {
        &self.identity
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// A path that leads to the open file from within this process.
    pub(super) fn descriptor_path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }
}

impl AsFd for Object {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// How the instruction follows from the address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Lookup {
    /// A return address: the call is the instruction before it, so it is
    /// looked up one byte lower. A call that never returns may be the last
    /// instruction of its function.
    #[default]
    Return,
    /// The address of the instruction itself: a fault, a signal, a probe.
    Instruction,
}

/// One code address of a process, normalized so that the process is not
/// needed to name it.
#[derive(Clone, Debug)]
pub enum CodeAddress {
    /// In a mapping of a file.
    File {
        /// The file.
        object: ObjectRef,
        /// Offset in the file: address - mapping begin + mapping offset.
        offset: u64,
        /// The address in the process, for the report.
        address: u64,
        /// What the address is.
        lookup: Lookup,
    },
    /// In executable memory without a file: code made at run time, which the
    /// runtime may have named in `/tmp/perf-PID.map`.
    Jit {
        /// The process, in leakd's pid namespace.
        pid: u32,
        /// The address in the process.
        address: u64,
        /// What the address is.
        lookup: Lookup,
    },
    /// In no known mapping.
    Unmapped {
        /// The address in the process.
        address: u64,
    },
}

impl CodeAddress {
    /// The address in the process.
    pub fn address(&self) -> u64 {
        match self {
            Self::File { address, .. }
            | Self::Jit { address, .. }
            | Self::Unmapped { address, .. } => *address,
        }
    }
}

/// One level of a call stack, named as far as it can be.
///
/// A physical address gives several frames where functions were inlined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The function, demangled; at most [`super::NAME_LIMIT`] characters. Not
    /// stripped of control characters: whoever prints it does that.
    pub function: Option<String>,
    /// The source file, absolute where the debug information says so.
    pub file: Option<String>,
    /// The line in it, from 1.
    pub line: Option<u32>,
    /// The path of the file that the code was mapped from, or `[jit]`.
    pub module: Option<String>,
    /// The build id of that file, in hex.
    pub build_id: Option<String>,
    /// The address in the process: a return address, unless it was given as
    /// that of an instruction.
    pub address: u64,
    /// Whether this function was inlined into that of the next frame.
    pub inlined: bool,
    /// Bytes from the function's first instruction to the address; none for an
    /// inlined function. Without a function it is the offset in the file.
    pub offset: Option<u64>,
}
