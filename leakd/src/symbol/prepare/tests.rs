//! What is hidden from the readers of a file, and what is not.

use super::*;
use crate::symbol::Object;
use gimli::constants::{DW_CHILDREN_yes, DW_TAG_compile_unit, DW_TAG_inlined_subroutine};
use std::os::unix::fs::chown;

fn own(bytes: &[u8], user: u32) -> (tempfile::TempDir, ObjectRef) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, bytes).unwrap();
    chown(&path, Some(user), None).unwrap();
    let object = Object::new(File::open(&path).unwrap(), &path).unwrap();
    (folder, object)
}

/// Check that only files that root alone can write are read where they are.
#[test]
fn trust() {
    let bytes = fs::read("/bin/true").unwrap();
    let (_folder, roots) = own(&bytes, 0);
    assert_eq!(prepare(&roots).unwrap().copied, 0);
    let (_folder, users) = own(&bytes, 12_345);
    assert_eq!(prepare(&users).unwrap().copied, bytes.len() as u64);
    let (folder, deleted) = own(&bytes, 0);
    drop(folder);
    assert_eq!(prepare(&deleted).unwrap().copied, bytes.len() as u64);
}

/// Check that a copy cannot change any more.
#[test]
fn copies_are_sealed() {
    let (_folder, object) = own(&fs::read("/bin/true").unwrap(), 12_345);
    let prepared = prepare(&object).unwrap();
    let opened = File::options().write(true).open(&prepared.path).unwrap();
    assert!(opened.set_len(0).is_err());
    assert!(opened.write_at(b"x", 0).is_err());
}

/// Check that what is no ELF file, and what is too large, is an error.
#[test]
fn unusable_files() {
    for bytes in [&b""[..], b"\x7fELF", b"#!/bin/sh\n", &[0x7f; 4096]] {
        let (_folder, object) = own(bytes, 12_345);
        assert_eq!(prepare(&object).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
    let (_folder, object) = own(b"", 12_345);
    File::options().write(true).open(object.path()).unwrap().set_len(COPY_LIMIT + 1).unwrap();
    assert_eq!(prepare(&object).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
}

/// A .debug_info of one unit with inlined functions nested `depth` deep, and
/// its .debug_abbrev.
fn nested(depth: usize) -> (Vec<u8>, Vec<u8>) {
    let mut abbreviations = Vec::new();
    for (code, tag) in [(1, DW_TAG_compile_unit), (2, DW_TAG_inlined_subroutine)] {
        abbreviations.extend([code, tag.0 as u8, DW_CHILDREN_yes.0, 0, 0]);
    }
    abbreviations.push(0);
    let mut unit = vec![4, 0, 0, 0, 0, 0, 8, 1];
    unit.resize(unit.len() + depth, 2);
    unit.resize(unit.len() + depth + 1, 0);
    let mut information = (unit.len() as u32).to_le_bytes().to_vec();
    information.extend(unit);
    (information, abbreviations)
}

fn walk_nested(depth: usize, deadline: Deadline) -> bool {
    let (information, abbreviations) = nested(depth);
    walk(
        DebugInfo::new(&information, LittleEndian),
        &DebugAbbrev::new(&abbreviations, LittleEndian),
        deadline,
    )
    .unwrap()
}

/// Check that functions inlined a million deep are found out before a reader
/// recurses into them, and that the search itself ends.
#[test]
fn nesting() {
    let later = Deadline::after(Duration::from_secs(100));
    assert!(walk_nested(DEPTH_LIMIT as usize - 1, later));
    assert!(!walk_nested(DEPTH_LIMIT as usize + 1, later));
    assert!(!walk_nested(1_000_000, later));
    assert!(!walk_nested(1, Deadline::after(Duration::ZERO)), "time is up");
}

/// Check that a section which says that it grows to a terabyte is hidden, and
/// that the others can still be read.
#[test]
fn compression_bomb() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("program");
    fs::write(folder.path().join("program.c"), "int main(void) { return 0; }\n").unwrap();
    let compiled = std::process::Command::new("cc")
        .current_dir(folder.path())
        .args(["-g", "-gz=zlib", "-o", "program", "program.c"])
        .status()
        .unwrap();
    assert!(compiled.success());
    let mut bytes = fs::read(&path).unwrap();
    let (data, header) = {
        let elf = object::File::parse(&*bytes).unwrap();
        let is_compressed = |section: &object::Section<'_, '_>| {
            section.compressed_file_range().unwrap().format != object::CompressionFormat::None
        };
        let section = elf.sections().find(is_compressed).expect("no section was compressed");
        let headers = u64::from_le_bytes(bytes[40..48].try_into().unwrap()); // e_shoff
        // The data begin behind the compression header of 24 bytes.
        let data = section.compressed_file_range().unwrap().offset as usize - 24;
        (data, headers + 64 * section.index().0 as u64)
    };
    let size = data + 8..data + 16; // ch_size
    bytes[size].copy_from_slice(&(1u64 << 40).to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    let hidden = dangers(&File::open(&path).unwrap()).unwrap();
    assert!(hidden.contains(&header), "{hidden:?} lacks {header}");
    assert!(hidden.len() <= 2, "more than that section and .debug_info: {hidden:?}");
}
