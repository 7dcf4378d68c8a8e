//! The executable mappings of a process.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ProcessError;
use super::info::open;

/// Lines of /proc/PID/maps that are read: sixteen times what
/// vm.max_map_count allows by default.
const MAX_LINES: usize = 1_000_000;
/// Executable mappings that are kept.
const MAX_EXECUTABLE: usize = 65_536;
/// Bytes of their paths, all together.
const MAX_PATHS: usize = 16 << 20;
/// A longer line is not from the kernel as we know it: the fields before the
/// path, and a path of PATH_MAX with every byte written as \ooo.
const MAX_LINE: u64 = 4 * libc::PATH_MAX as u64 + 128;

/// What an executable mapping holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MappingKind {
    /// A file.
    File {
        /// Its path, as the process's mount namespace has it. The kernel
        /// writes a newline as `\012` but leaves a backslash alone, so that
        /// a file named `\012` reads like one named with a newline; see
        /// [`super::open_object`] for how to open it all the same.
        path: Arc<Path>,
        /// Whether the file has been unlinked. Of a file whose name really
        /// ends in " (deleted)" that is said, too.
        deleted: bool,
    },
    /// The kernel's vDSO.
    Vdso,
    /// The kernel's vsyscall page.
    Vsyscall,
    /// Memory of the process: mostly code of a just-in-time compiler.
    Anonymous,
}

/// One executable mapping of a process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExecutableMapping {
    /// The first address.
    pub begin: u64,
    /// The address behind the last one.
    pub end: u64,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// The file's device, as `st_dev` has it. On btrfs and overlayfs stat(2)
    /// may give another number for the same file.
    pub device: u64,
    /// The file's inode; 0: no file.
    pub inode: u64,
    /// What it holds.
    pub kind: MappingKind,
}

impl ExecutableMapping {
    /// Whether it is of the file with this device and inode, as stat(2) gives them.
    pub fn is_of(&self, device: u64, inode: u64) -> bool {
        (self.device, self.inode) == (device, inode)
    }
}

/// The executable mappings of a process, in the order of their addresses.
/// The kernel's areas for uprobes are left out.
///
/// # Errors
/// See [`ProcessError`]; [`ProcessError::TooLarge`] for a process that maps
/// more than can be looked after.
pub fn mappings(pid: u32) -> Result<Vec<ExecutableMapping>, ProcessError> {
    let file = open(pid)?
        .open_relative("maps")
        .map_err(|error| ProcessError::from_procfs(pid, "maps", error))?;
    parse(file, pid)
}

/// Whether the process runs under valgrind, which translates all code: no
/// probe in it would ever be reached.
pub fn runs_under_valgrind(mappings: &[ExecutableMapping]) -> bool {
    mappings.iter().any(|mapping| match &mapping.kind {
        MappingKind::File { path, .. } => {
            path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"vgpreload_core"))
        }
        _ => false,
    })
}

/// Reads the format of /proc/PID/maps.
pub(super) fn parse(source: impl Read, pid: u32) -> Result<Vec<ExecutableMapping>, ProcessError> {
    let mut reader = BufReader::with_capacity(64 << 10, source);
    let mut found: Vec<ExecutableMapping> = Vec::new();
    let mut line = Vec::new();
    let mut path_bytes = 0;
    let too_large = |what, limit| Err(ProcessError::TooLarge { pid, what, limit });
    for count in 0.. {
        line.clear();
        let read = (&mut reader)
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)
            .map_err(|error| ProcessError::reading(pid, "maps", error))?;
        if read == 0 {
            break;
        }
        if count == MAX_LINES {
            return too_large("mappings", MAX_LINES);
        }
        let strange = || ProcessError::Read {
            pid,
            what: "maps",
            source: std::io::Error::other("a line is not in the kernel's format"),
        };
        let line = line.strip_suffix(b"\n").ok_or_else(strange)?;
        let Some(mut mapping) = parse_line(line).ok_or_else(strange)? else { continue };
        if found.len() == MAX_EXECUTABLE {
            return too_large("executable mappings", MAX_EXECUTABLE);
        }
        if let MappingKind::File { path, .. } = &mut mapping.kind {
            // The mappings of a file mostly lie next to each other.
            match found.last().map(|last| &last.kind) {
                Some(MappingKind::File { path: known, .. }) if known == path => {
                    *path = Arc::clone(known);
                }
                _ => path_bytes += path.as_os_str().len(),
            }
        }
        if path_bytes > MAX_PATHS {
            return too_large("bytes of paths", MAX_PATHS);
        }
        found.push(mapping);
    }
    Ok(found)
}

/// Reads one line: `begin-end perms offset major:minor inode   path`. The
/// outer `None`: it is not of this form; the inner: it is of no interest.
fn parse_line(line: &[u8]) -> Option<Option<ExecutableMapping>> {
    let mut rest = line;
    let mut field = || {
        let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
        let (field, tail) = rest.split_at(end);
        rest = tail.strip_prefix(b" ").unwrap_or(tail);
        std::str::from_utf8(field).ok()
    };
    let (begin, end) = field()?.split_once('-')?;
    let permissions = field()?;
    let offset = field()?;
    let (major, minor) = field()?.split_once(':')?;
    let inode = field()?.parse().ok()?;
    let begin = u64::from_str_radix(begin, 16).ok()?;
    let end = u64::from_str_radix(end, 16).ok()?;
    let offset = u64::from_str_radix(offset, 16).ok()?;
    let major = u32::from_str_radix(major, 16).ok()?;
    let minor = u32::from_str_radix(minor, 16).ok()?;
    if end < begin || permissions.len() < 4 {
        return None;
    }
    if permissions.as_bytes()[2] != b'x' {
        return Some(None);
    }
    let kind = kind(rest.trim_ascii_start(), inode);
    let device = libc::makedev(major, minor);
    Some(kind.map(|kind| ExecutableMapping { begin, end, offset, device, inode, kind }))
}

/// What the last field says; `None` for the kernel's own uprobe areas.
fn kind(name: &[u8], inode: u64) -> Option<MappingKind> {
    if inode != 0 {
        let deleted = name.strip_suffix(b" (deleted)");
        let path = unescape(deleted.unwrap_or(name));
        let path = Arc::from(PathBuf::from(path));
        return Some(MappingKind::File { path, deleted: deleted.is_some() });
    }
    match name {
        b"[vdso]" => Some(MappingKind::Vdso),
        b"[vsyscall]" => Some(MappingKind::Vsyscall),
        // The second holds the trampolines of optimized probes (Linux 6.18).
        b"[uprobes]" | b"[uprobes-trampoline]" => None,
        _ => Some(MappingKind::Anonymous),
    }
}

/// Undoes the kernel's `\012` for a newline (`seq_file_path`).
fn unescape(name: &[u8]) -> OsString {
    if !name.contains(&b'\\') {
        return OsStr::from_bytes(name).to_owned();
    }
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, tail)) = rest.split_first() {
        match rest.strip_prefix(br"\012") {
            Some(tail) => {
                plain.push(b'\n');
                rest = tail;
            }
            None => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(plain)
}
