//! ELF files made by hand around a section of call frame information.

use std::fs::File;
use std::io::Write;

use super::synthetic::Section;

/// Sections and their names.
const NAMES: &[u8] = b"\0.eh_frame\0.debug_frame\0.shstrtab\0";
const SHF_COMPRESSED: u64 = 0x800;

/// What is in the one section that matters.
pub(super) enum Content<'a> {
    /// .eh_frame.
    EhFrame(&'a [u8]),
    /// .debug_frame: `first`, then `again` so many times.
    DebugFrame { first: &'a [u8], again: &'a [u8], times: usize },
    /// .eh_frame, compressed by zstd or zlib (1), that says how large it is.
    Compressed { algorithm: u32, size: u64, data: &'a [u8] },
}

/// A file for x86-64 with one executable segment from 0 to 1 GiB.
pub(super) fn elf_file(content: &Content<'_>) -> File {
    let mut file = std::io::BufWriter::new(tempfile::tempfile().unwrap());
    let compression;
    let (first, again, times, name, flags): (&[u8], &[u8], usize, u32, u64) = match content {
        Content::EhFrame(data) => (data, &[], 0, 1, 0),
        Content::DebugFrame { first, again, times } => (first, again, *times, 11, 0),
        Content::Compressed { algorithm, size, data } => {
            compression =
                [&algorithm.to_le_bytes()[..], &[0; 4], &size.to_le_bytes(), &1u64.to_le_bytes()]
                    .concat();
            (&compression, data, 1, 1, SHF_COMPRESSED)
        }
    };
    let size = (first.len() + again.len() * times) as u64;
    let data = 64 + 56;
    let names = data + size;
    let sections = names + NAMES.len() as u64;
    // e_ident, then type DYN, machine x86-64, version.
    let mut header = b"\x7fELF\x02\x01\x01".to_vec();
    header.resize(16, 0);
    header.extend([3, 0, 62, 0, 1, 0, 0, 0]);
    for word in [0, 64, sections] {
        header.extend(word.to_le_bytes());
    }
    header.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 64, 3, 2] {
        header.extend(half.to_le_bytes());
    }
    // PT_LOAD, readable and executable.
    header.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for word in [0, 0, 0, 1 << 30, 1 << 30, 4096u64] {
        header.extend(word.to_le_bytes());
    }
    file.write_all(&header).unwrap();
    file.write_all(first).unwrap();
    for _ in 0..times {
        file.write_all(again).unwrap();
    }
    file.write_all(NAMES).unwrap();
    file.write_all(&[0; 64]).unwrap();
    for (name, kind, flags, offset, size) in
        [(name, 1u32, flags, data, size), (24, 3, 0, names, NAMES.len() as u64)]
    {
        let mut section = name.to_le_bytes().to_vec();
        section.extend(kind.to_le_bytes());
        for word in [flags, 1 << 31, offset, size] {
            section.extend(word.to_le_bytes());
        }
        section.resize(64, 0);
        file.write_all(&section).unwrap();
    }
    file.into_inner().unwrap()
}

/// A file that takes hours, if nobody ends that: the instructions of its CIE are
/// many, and run again for each of many entries.
pub(super) fn slow_file() -> File {
    let mut section = Section::new(16, &vec![0; 900_000]);
    for index in 0..50_000 {
        section.entry(0x1000 + 16 * index, 16, &[]);
    }
    elf_file(&Content::EhFrame(&section.bytes))
}

/// Check that such a file gives a table, so that what others are refused for is
/// not a slip in this one.
#[test]
fn files_are_in_order() {
    use crate::unwind::{Limits, convert};
    let mut section = Section::new(16, &[0x0c, 7, 8, 0x90, 1]);
    section.entry(0x2000, 16, &[0x0e, 16]);
    let table = |content: &Content<'_>| convert(&elf_file(content), Limits::default()).unwrap();
    let plain = table(&Content::EhFrame(&section.bytes));
    assert_eq!((plain.stats.entries, plain.rows.len()), (1, 2));
    // A zstd frame of one block as it stands.
    let block = section.bytes.len() << 3 | 1;
    let mut data = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x38, block as u8, (block >> 8) as u8, 0];
    data.extend(&section.bytes);
    let size = section.bytes.len() as u64;
    assert_eq!(table(&Content::Compressed { algorithm: 2, size, data: &data }), plain);
}
