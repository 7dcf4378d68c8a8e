//! What is done to an ELF file before blazesym reads it.
//!
//! blazesym maps files into memory, follows debug links to whatever path they
//! name, trusts the sizes of compressed sections and recurses as deep as
//! functions are inlined. That is right for files that only root can write.
//! A file that somebody else can write could be cut short while it is mapped
//! (SIGBUS), could name a FIFO as its debug file, or ask for a terabyte. Such
//! a file is copied into sealed memory first, where it can no longer change;
//! then sections that could do harm are hidden from their readers. What stays
//! is good for function names, lines and inlined functions as well.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::time::Duration;

use gimli::{DebugAbbrev, DebugInfo, EndianSlice, LittleEndian};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use object::elf::FileHeader64;
use object::read::elf::{ElfFile, ElfSection, FileHeader};
use object::{Endianness, Object as _, ObjectSection, ReadCache};

use super::address::{Object, ObjectRef};
use crate::thread_time::Deadline;

/// Bytes of a file that is copied.
pub const COPY_LIMIT: u64 = 512 << 20;
/// Bytes that a compressed section may grow to.
const SECTION_LIMIT: u64 = 512 << 20;
/// Sections of a file that is copied.
const SECTION_COUNT_LIMIT: usize = 64 << 10;
/// Depth of debugging information entries: compilers stay below a hundred.
const DEPTH_LIMIT: isize = 1_000;
/// Time that the check of a file's debugging information may take.
const CHECK_TIME: Duration = Duration::from_secs(3);

/// Sections that lead to other files, or to debugging information of which no
/// ordinary program file has any.
const UNWANTED: &[&[u8]] =
    &[b".gnu_debuglink", b".gnu_debugaltlink", b".debug_sup", b".debug_info.dwo"];

/// A file that blazesym may read, held open under `path`.
#[derive(Debug)]
pub struct Prepared {
    /// A path in /proc/self/fd.
    pub path: PathBuf,
    /// Bytes of memory that a copy takes; 0 for the file itself.
    pub copied: u64,
    _open: Open,
}

#[derive(Debug)]
#[allow(dead_code)] // held for their descriptors
enum Open {
    Object(ObjectRef),
    Copy(File),
}

/// Makes a file ready to be read.
///
/// # Errors
/// If the file cannot be read, is no 64-bit ELF file or is too large; only
/// files that are copied are looked at.
pub fn prepare(object: &ObjectRef) -> io::Result<Prepared> {
    if is_trusted(object) {
        let path = object.descriptor_path();
        return Ok(Prepared { path, copied: 0, _open: Open::Object(object.clone()) });
    }
    let copy = copy(object.file())?;
    hide_dangers(&copy)?;
    let seals = SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_SEAL;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(seals))?;
    let path = format!("/proc/self/fd/{}", copy.as_raw_fd()).into();
    Ok(Prepared { path, copied: copy.metadata()?.len(), _open: Open::Copy(copy) })
}

/// Whether nobody but root (or who leakd runs as) can write a file, and it is
/// part of the file tree that leakd sees: root of a container is not meant.
fn is_trusted(object: &Object) -> bool {
    let Ok(status) = object.file().metadata() else { return false };
    let own = nix::unistd::geteuid().as_raw();
    if !(status.uid() == 0 || status.uid() == own) || status.mode() & 0o022 != 0 {
        return false;
    }
    // Debug links are looked up relative to where the link leads.
    let Ok(path) = fs::read_link(object.descriptor_path()) else { return false };
    fs::metadata(path).is_ok_and(|seen| seen.dev() == status.dev() && seen.ino() == status.ino())
}

fn copy(file: &File) -> io::Result<File> {
    let size = file.metadata()?.len();
    let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, "file too large to copy");
    if size > COPY_LIMIT {
        return Err(too_large());
    }
    let descriptor =
        memfd_create("leakd-symbols", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut copy = File::from(descriptor);
    // Opened anew, so that it is read from its beginning.
    let source = File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let copied = io::copy(&mut source.take(COPY_LIMIT + 1), &mut copy)?;
    if copied > COPY_LIMIT { Err(too_large()) } else { Ok(copy) }
}

/// Hides sections by clearing their names' offsets: no reader finds them then.
fn hide_dangers(copy: &File) -> io::Result<()> {
    for offset in dangers(copy)? {
        copy.write_all_at(&0u32.to_le_bytes(), offset)?;
    }
    Ok(())
}

type Header = FileHeader64<Endianness>;
type Elf<'a> = ElfFile<'a, Header, &'a ReadCache<&'a File>>;
type Section<'a, 'file> = ElfSection<'a, 'file, Header, &'a ReadCache<&'a File>>;

/// File offsets of the section headers to hide; `sh_name` is their first field.
fn dangers(copy: &File) -> io::Result<Vec<u64>> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let cache = ReadCache::new(copy);
    let elf = Elf::parse(&cache).map_err(invalid)?;
    if elf.endian() != Endianness::Little {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "big-endian ELF file"));
    }
    let header = elf.elf_header();
    let begin = header.e_shoff(Endianness::Little);
    let sections: Vec<_> = elf.sections().take(SECTION_COUNT_LIMIT + 1).collect();
    if sections.len() > SECTION_COUNT_LIMIT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too many sections"));
    }
    let at = |section: &Section<'_, '_>| begin + section.index().0 as u64 * 64;
    let mut hidden = Vec::new();
    let mut debugging_information_is_sane = None;
    for section in &sections {
        let name = section.name_bytes().unwrap_or_default();
        let harmful = if UNWANTED.contains(&name) || !is_small(section) {
            true
        } else if name == b".debug_info" {
            !*debugging_information_is_sane.get_or_insert_with(|| has_sane_depth(&elf))
        } else {
            false
        };
        if harmful {
            hidden.push(at(section));
        }
    }
    Ok(hidden)
}

fn is_small(section: &Section<'_, '_>) -> bool {
    section.compressed_file_range().is_ok_and(|range| range.uncompressed_size <= SECTION_LIMIT)
}

/// Whether no debugging information entry is nested deeper than a reader that
/// recurses can bear. What cannot be parsed or takes too long is not sane.
fn has_sane_depth(elf: &Elf<'_>) -> bool {
    let load = |name: &str| {
        let sections = elf.sections().filter(|section| section.name() == Ok(name));
        let mut sections = sections.filter(is_small);
        // More than one of a name: readers would disagree about which it is.
        match (sections.next(), sections.next()) {
            (Some(section), None) => section.uncompressed_data().ok(),
            _ => None,
        }
    };
    let (Some(information), Some(abbreviations)) = (load(".debug_info"), load(".debug_abbrev"))
    else {
        return false;
    };
    let deadline = Deadline::after(CHECK_TIME);
    walk(
        DebugInfo::new(&information, LittleEndian),
        &DebugAbbrev::new(&abbreviations, LittleEndian),
        deadline,
    )
    .unwrap_or(false)
}

fn walk(
    information: DebugInfo<EndianSlice<'_, LittleEndian>>,
    abbreviations: &DebugAbbrev<EndianSlice<'_, LittleEndian>>,
    deadline: Deadline,
) -> gimli::Result<bool> {
    let mut units = information.units();
    let mut entry_count = 0u64;
    while let Some(unit) = units.next()? {
        if deadline.has_passed() {
            return Ok(false);
        }
        let abbreviations = unit.abbreviations(abbreviations)?;
        let mut entries = unit.entries_raw(&abbreviations, None)?;
        while !entries.is_empty() {
            if entries.next_depth() > DEPTH_LIMIT {
                return Ok(false);
            }
            if let Some(abbreviation) = entries.read_abbreviation()? {
                entries.skip_attributes(abbreviation.attributes())?;
            }
            entry_count += 1;
            if entry_count.is_multiple_of(1 << 16) && deadline.has_passed() {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
