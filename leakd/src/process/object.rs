//! Opening the file behind a mapping.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{ExecutableMapping, MappingKind};

/// Opens the file behind a mapping, whatever mount namespace the process is
/// in and whether or not the file still has a name.
///
/// First by /proc/PID/map_files, which leads to the very file. Where that is
/// not permitted (it needs CAP_CHECKPOINT_RESTORE), by the path as the
/// process's root directory has it, provided that device and inode are those
/// of the mapping.
///
/// Nothing but a regular file is ever opened for reading: opening a FIFO
/// could wait for ever, opening a device can do anything.
///
/// # Errors
/// `NotFound` if the mapping is gone or the file at its path is another one,
/// `InvalidInput` for a mapping without a file or with one that is not a
/// regular file, and those of openat(2).
pub fn open_object(pid: u32, mapping: &ExecutableMapping) -> io::Result<File> {
    if !matches!(mapping.kind, MappingKind::File { .. }) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the mapping has no file"));
    }
    let range = format!("/proc/{pid}/map_files/{:x}-{:x}", mapping.begin, mapping.end);
    let by_range = open_regular(Path::new(&range), |_| true);
    let Err(range_error) = by_range else { return by_range };
    if range_error.kind() == io::ErrorKind::InvalidInput {
        return Err(range_error);
    }
    match open_by_path(pid, mapping) {
        Ok(file) => Ok(file),
        // The first error says more, unless it was only a matter of
        // permission.
        Err(error) if range_error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        Err(_) => Err(range_error),
    }
}

/// Opens the file at a mapping's path if it is the mapped one.
pub(super) fn open_by_path(pid: u32, mapping: &ExecutableMapping) -> io::Result<File> {
    let MappingKind::File { path, deleted } = &mapping.kind else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the mapping has no file"));
    };
    let is_it = |found: &Metadata| mapping.is_of(found.dev(), found.ino());
    let mut result = open_regular(&below_root(pid, path), is_it);
    // Or was the newline a backslash and three digits, or " (deleted)" part
    // of the name?
    let mut names = Vec::new();
    if path.as_os_str().as_bytes().contains(&b'\n') {
        names.push(escape(path));
    }
    if *deleted {
        let mut name = path.as_os_str().to_owned();
        name.push(" (deleted)");
        names.push(PathBuf::from(name));
    }
    for name in names {
        if result.is_err() {
            result = open_regular(&below_root(pid, &name), is_it).or(result);
        }
    }
    result
}

fn below_root(pid: u32, path: &Path) -> PathBuf {
    let mut below = format!("/proc/{pid}/root").into_bytes();
    if !path.as_os_str().as_bytes().starts_with(b"/") {
        below.push(b'/');
    }
    below.extend_from_slice(path.as_os_str().as_bytes());
    PathBuf::from(std::ffi::OsString::from_vec(below))
}

fn escape(path: &Path) -> PathBuf {
    let bytes = path.as_os_str().as_bytes();
    let escaped: Vec<u8> = bytes
        .iter()
        .flat_map(|byte| if *byte == b'\n' { br"\012".to_vec() } else { vec![*byte] })
        .collect();
    PathBuf::from(std::ffi::OsString::from_vec(escaped))
}

/// Opens a file for reading if it is a regular one and passes the check.
fn open_regular(path: &Path, check: impl Fn(&Metadata) -> bool) -> io::Result<File> {
    // O_PATH only finds the file: no driver learns of it, nothing blocks.
    let found =
        OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(path)?;
    let metadata = found.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    if !check(&metadata) {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "another file has taken the place of the mapped one",
        ));
    }
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY)
        .open(format!("/proc/self/fd/{}", found.as_raw_fd()))
}
