//! What the worst of files may cost: memory as counted by the allocator, time
//! as the limit says.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use super::elf_file::{Content, elf_file, slow_file};
use super::hostile::loader;
use super::synthetic::Section;
use crate::allocation_peak::peak_of;
use crate::thread_time::thread_time;
use crate::unwind::{ConvertError, Limits, convert};

/// The limits that hold for every file, but for time: that of a slow machine is
/// not to keep the worst from being reached.
const LIMITS: Limits = Limits { bytes: 256 << 20, time: super::AGES };

/// Converts within the limit on memory, and says what it took.
fn within_memory(what: &str, file: &File) -> Result<(), ConvertError> {
    let begun = thread_time();
    let (result, peak) = peak_of(|| convert(file, LIMITS).map(drop));
    let took = (thread_time() - begun).as_millis();
    eprintln!("{what}: {} KiB, {took} ms, {result:?}", peak >> 10);
    assert!(peak as u64 <= LIMITS.bytes, "{what}: {peak} bytes");
    result
}

/// A .debug_frame of one CIE and, many times, one FDE with these instructions.
fn repeated(instructions: &[u8], megabytes: usize) -> File {
    let mut section = Section::new(16, &[0x0c, 7, 8, 0x90, 1]);
    let first = section.bytes.clone();
    section.entry(0x2000, 0x1000_0000, instructions);
    let mut cie = first.clone();
    cie[4..8].fill(0xff);
    let mut again = section.bytes[first.len()..].to_vec();
    // The CIE is at the beginning of the section.
    again[4..8].fill(0);
    let times = (megabytes << 20) / again.len();
    elf_file(&Content::DebugFrame { first: &cie, again: &again, times })
}

/// Check that sections of the worst kinds stay within the memory of one file:
/// nothing but entries, nothing but rows, both as large as can be.
#[test]
fn large_sections() {
    let too_large = |what| ConvertError::TooLarge { what, limit: LIMITS.bytes };
    assert_eq!(
        within_memory("entries", &repeated(&[], 100)),
        Err(too_large("the list of entries"))
    );
    // def_cfa_offset 16; advance_loc 1; def_cfa_offset 24; advance_loc 1
    let rows = [0x0e, 16, 0x41, 0x0e, 24, 0x41].repeat(150_000);
    within_memory("rows of one entry, many times", &repeated(&rows, 100)).unwrap();
    assert_eq!(within_memory("a section", &repeated(&rows, 256)), Err(too_large("a section")));
    // As many rows as fit: each entry has its own addresses.
    let mut section = Section::new(16, &[0x0c, 7, 8, 0x90, 1]);
    for entry in 0..130 {
        section.entry(0x2000 + 300_000 * entry, 300_000, &rows);
    }
    let result = within_memory("rows", &elf_file(&Content::EhFrame(&section.bytes)));
    assert_eq!(result, Err(too_large("the rows")));
}

/// Check that a section that is small until it is decompressed is refused or
/// stays within the memory of one file, whatever it claims to become.
#[test]
fn compressed_sections() {
    // A zstd frame of blocks that repeat one byte 128 KiB times: its window is
    // `window` (RFC 8878, 3.1.1.1.2).
    let bomb = |window: u8, blocks: usize| {
        let mut data = vec![0x28, 0xb5, 0x2f, 0xfd, 0, window];
        for block in 1..=blocks {
            let header = (128u32 << 10) << 3 | 1 << 1 | u32::from(block == blocks);
            data.extend(&header.to_le_bytes()[..3]);
            data.push(0x11);
        }
        data
    };
    let usual = 0x38;
    for (what, size, data) in [
        ("as it says", 100 << 20, bomb(usual, 800)),
        ("far more than it says", 1 << 20, bomb(usual, 20_000)),
        ("far less than it says", 200 << 20, bomb(usual, 1)),
        ("a window of 1 GiB", 100 << 20, bomb(20 << 3, 800)),
        ("the largest window", 100 << 20, bomb(0xff, 800)),
        ("more than the limit", 1 << 40, bomb(usual, 1)),
        ("as much as can be told", u64::MAX, bomb(usual, 1)),
    ] {
        let file = elf_file(&Content::Compressed { algorithm: 2, size, data: &data });
        within_memory(&format!("zstd, {what}"), &file).unwrap_err();
    }
    // zlib: a stored block that ends too early, behind sizes of any kind.
    for size in [1 << 10, 200 << 20, 1 << 40] {
        let data = [0x78, 0x01, 0x01, 0xff, 0xff, 0, 0, 1, 2, 3];
        let file = elf_file(&Content::Compressed { algorithm: 1, size, data: &data });
        within_memory("zlib", &file).unwrap_err();
    }
}

/// Check that tables of headers, in a sparse file that is as large as they say,
/// stay within the memory of one file.
#[test]
fn header_tables() {
    // e_shoff and e_shnum; e_phoff and e_phnum.
    for (name, at, count) in [("sections", 0x28, 0x3c), ("segments", 0x20, 0x38)] {
        let file = tempfile::tempfile().unwrap();
        let mut header = loader()[..4096].to_vec();
        header[at..at + 8].copy_from_slice(&4096u64.to_le_bytes());
        // The largest number that means itself.
        header[count..count + 2].copy_from_slice(&0xfefeu16.to_le_bytes());
        file.write_all_at(&header, 0).unwrap();
        // Their names: all the rest of the file.
        file.write_all_at(&(1u64 << 39).to_le_bytes(), 4096 + 32).unwrap();
        file.set_len(1 << 40).unwrap();
        within_memory(name, &file).unwrap_err();
    }
}

/// Check that the limit on time ends what would take hours, of each kind: and
/// soon, for the clock is looked at often enough.
#[test]
fn time() {
    const TIME: Duration = Duration::from_millis(100);
    for (what, file) in [("instructions", slow_file()), ("entries", repeated(&[], 100))] {
        let begun = thread_time();
        let limits = Limits { time: TIME, ..LIMITS };
        let error = convert(&file, limits).unwrap_err();
        eprintln!("{what}: {:?} of {TIME:?}", thread_time() - begun);
        assert_eq!(error, ConvertError::TookTooLong(100), "{what}");
    }
}
