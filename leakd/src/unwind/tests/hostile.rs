//! Files that somebody made to do harm.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::sync::OnceLock;
use std::time::Duration;

use proptest::prelude::*;

use crate::unwind::convert::{convert_bytes, convert_image};
use crate::unwind::image::{Architecture, ElfImage, FrameFormat, FrameSection, Segment};
use crate::unwind::{ConvertError, Limits, Table, convert};

/// Small, so that a runaway is seen as an error and not as a slow test.
const LIMITS: Limits = Limits { bytes: 64 << 20, time: Duration::from_secs(5) };

/// An image with one executable segment around `data` as .eh_frame.
pub(super) fn image(architecture: Architecture, format: FrameFormat, data: Vec<u8>) -> ElfImage {
    let text = Segment {
        file_offset: 0x1000,
        file_size: 0x10_0000,
        address: 0x1000,
        memory_size: 0x10_0000,
        executable: true,
    };
    ElfImage {
        architecture,
        segments: vec![text],
        frames: vec![FrameSection { format, address: 0x20_0000, data, ends_at_zero: false }],
        text_address: Some(0x1000),
        got_address: None,
    }
}

/// A table, whatever is in it, can be asked about any address.
pub(super) fn ask(table: &Table) {
    let first = u64::from(table.first_page) << 12;
    let cells = table.cells(&[], 0);
    for step in 0..512 {
        let address = first + step * (u64::from(table.pages) << 12) / 512;
        let _ = table.find(address);
        let _ = super::walker::find(&cells, address);
    }
    for address in [0, first.wrapping_sub(1), u64::MAX] {
        assert_eq!(table.find(address).is_some(), super::walker::find(&cells, address).is_ok());
    }
    assert_eq!(table.directory.len(), table.pages as usize + 1);
    assert!(table.directory.is_sorted());
    assert!(table.rows.iter().all(|row| ((row >> 12) as usize) < table.rules.len()));
}

/// The dynamic loader: small, with every kind of entry.
pub(super) fn loader() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|line| line.contains("/ld-")).expect("a dynamic loader");
        std::fs::read(&line[line.find('/').unwrap()..]).unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Check that random bytes in either section end in a table or an error.
    #[test]
    fn random_sections(data in proptest::collection::vec(any::<u8>(), 0..2000), eh: bool, arm: bool) {
        let format = if eh { FrameFormat::EhFrame } else { FrameFormat::DebugFrame };
        let architecture = if arm { Architecture::Aarch64 } else { Architecture::X86_64 };
        if let Ok(table) = convert_image(&image(architecture, format, data), LIMITS) {
            ask(&table);
        }
    }

    /// Check the same for random instructions in an entry that is in order.
    #[test]
    fn random_instructions(
        shared in proptest::collection::vec(any::<u8>(), 0..64),
        own in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 1..8),
    ) {
        let mut section = super::synthetic::Section::new(16, &shared);
        for (index, instructions) in own.iter().enumerate() {
            section.entry(0x2000 + 0x80 * index as u64, 0x90, instructions);
        }
        let image = image(Architecture::X86_64, FrameFormat::EhFrame, section.bytes);
        ask(&convert_image(&image, LIMITS).expect("entries"));
    }

    /// Check that a real file with some bytes changed ends in a table or an
    /// error.
    #[test]
    fn mutations(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..40)) {
        let mut bytes = loader().to_vec();
        for (at, value, in_header) in changes {
            let range = if in_header { 64 } else { bytes.len() };
            bytes[at.index(range)] = value;
        }
        if let Ok(table) = convert_bytes(&*bytes, LIMITS) {
            ask(&table);
        }
    }

    /// Check that a real file cut off anywhere ends in a table or an error.
    #[test]
    fn truncations(at: prop::sample::Index) {
        let bytes = loader();
        if let Ok(table) = convert_bytes(&bytes[..at.index(bytes.len())], LIMITS) {
            ask(&table);
        }
    }
}

/// Check that what is no ELF file, or none for us, is called what it is.
#[test]
fn wrong_files() {
    let refused = |bytes: &[u8]| convert_bytes(bytes, LIMITS).unwrap_err();
    assert_eq!(refused(b""), ConvertError::NotElf);
    assert_eq!(refused(b"#!/bin/sh\necho an interpreter script\n"), ConvertError::NotElf);
    let mut bytes = loader().to_vec();
    bytes[4] = 1;
    assert_eq!(refused(&bytes), ConvertError::WrongClass);
    let mut bytes = loader().to_vec();
    bytes[0x12] = 8;
    assert_eq!(refused(&bytes), ConvertError::UnsupportedMachine(8));
    let mut bytes = loader().to_vec();
    // e_phnum
    bytes[0x38..0x3a].fill(0);
    assert_eq!(refused(&bytes), ConvertError::NoText);
    assert!(matches!(refused(&loader()[..100]), ConvertError::Damaged(_)));

    let device = File::open("/dev/null").unwrap();
    assert_eq!(convert(&device, LIMITS).unwrap_err(), ConvertError::NotRegular);
    let process_file = File::open("/proc/self/maps").unwrap();
    assert_eq!(convert(&process_file, LIMITS).unwrap_err(), ConvertError::NotElf);
}

/// Check that an image without entries for its text says so.
#[test]
fn nothing_there() {
    for data in [vec![], vec![0; 64]] {
        let image = image(Architecture::X86_64, FrameFormat::EhFrame, data);
        assert_eq!(convert_image(&image, LIMITS).unwrap_err(), ConvertError::NoEntries);
    }
    let mut section = super::synthetic::Section::new(16, &[]);
    section.entry(0xffff_0000, 16, &[]);
    let image = image(Architecture::X86_64, FrameFormat::EhFrame, section.bytes);
    assert_eq!(convert_image(&image, LIMITS).unwrap_err(), ConvertError::NoEntries);
}

/// Check that header tables that claim to be huge, in a sparse file that really
/// is, are refused and not read.
#[test]
fn sparse_header_tables() {
    let file = tempfile::tempfile().unwrap();
    let mut header = loader()[..64].to_vec();
    header[0x28..0x30].copy_from_slice(&4096u64.to_le_bytes());
    // e_shnum 0: the count is in the first section header's size field.
    header[0x3c..0x3e].fill(0);
    file.write_all_at(&header, 0).unwrap();
    file.write_all_at(&loader()[64..4096], 64).unwrap();
    file.write_all_at(&(1u64 << 32).to_le_bytes(), 4096 + 32).unwrap();
    file.set_len(1 << 40).unwrap();
    // The sections are given up; PT_GNU_EH_FRAME points into a hole.
    let error = convert(&file, LIMITS).unwrap_err();
    assert!(matches!(error, ConvertError::NoFrames | ConvertError::NoEntries), "{error}");
}

/// Check that a section larger than the limit is refused before it is read.
#[test]
fn huge_section() {
    let mut bytes = loader().to_vec();
    let object = object::File::parse(&*bytes).unwrap();
    use object::read::elf::{FileHeader as _, SectionHeader as _};
    let object::File::Elf64(elf) = object else { panic!("64-bit") };
    let endian = elf.endian();
    let sections = elf.elf_header().sections(endian, loader()).unwrap();
    let (index, _) = sections.section_by_name(endian, b".eh_frame").unwrap();
    let table = elf.elf_header().e_shoff.get(endian) as usize;
    let at = table + index.0 * 64 + 32;
    assert_eq!(bytes[at..at + 8], sections.section(index).unwrap().sh_size(endian).to_le_bytes());
    bytes[at..at + 8].copy_from_slice(&(1u64 << 36).to_le_bytes());
    let error = convert_bytes(&*bytes, LIMITS).unwrap_err();
    assert!(matches!(error, ConvertError::Damaged(_)), "{error}");

    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    file.set_len(1 << 40).unwrap();
    let error = convert(&file, LIMITS).unwrap_err();
    assert!(matches!(error, ConvertError::TooLarge { .. }), "{error}");
}

/// Check that a CIE whose instructions are long, and run again for each of very
/// many entries, runs into the time limit instead of running for hours.
#[test]
fn expensive_cie() {
    let instructions = vec![0; 900_000];
    let mut section = super::synthetic::Section::new(16, &instructions);
    for index in 0..50_000 {
        section.entry(0x1000 + 16 * index, 16, &[]);
    }
    let image = image(Architecture::X86_64, FrameFormat::EhFrame, section.bytes);
    let limits = Limits { time: Duration::from_millis(100), ..LIMITS };
    assert_eq!(convert_image(&image, limits).unwrap_err(), ConvertError::TookTooLong(100));
}

/// Check that very many small entries run into the memory limit.
#[test]
fn many_entries() {
    let mut section = super::synthetic::Section::new(16, &[]);
    for index in 0..60_000 {
        section.entry(0x1000 + 16 * index, 16, &[]);
    }
    let image = image(Architecture::X86_64, FrameFormat::EhFrame, section.bytes);
    let limits = Limits { bytes: 1 << 20, ..LIMITS };
    let error = convert_image(&image, limits).unwrap_err();
    assert_eq!(error, ConvertError::TooLarge { what: "the list of entries", limit: 1 << 20 });
}

/// Check that a CIE pointer to the entry itself, to another FDE, and out of the
/// section spoils that entry alone.
#[test]
fn circular_cie_pointers() {
    let mut section = super::synthetic::Section::new(16, &[0x0c, 7, 8, 0x90, 1]);
    section.entry(0x2000, 16, &[]);
    let bad = section.bytes.len();
    section.entry(0x3000, 16, &[]);
    section.entry(0x4000, 16, &[]);
    for pointer in [4u32, 8, 28, 0x7fff_ffff, u32::MAX] {
        let mut bytes = section.bytes.clone();
        bytes[bad + 4..bad + 8].copy_from_slice(&pointer.to_le_bytes());
        let image = image(Architecture::X86_64, FrameFormat::EhFrame, bytes);
        let table = convert_image(&image, LIMITS).unwrap();
        assert_eq!((table.stats.entries, table.stats.bad_entries), (3, 1), "{pointer:#x}");
        assert_eq!(table.find(0x3000), Some(leakd_common::unwind::Rule::NONE));
        assert_eq!(table.find(0x4000), table.find(0x2000));
    }
}
