//! GNU build ids.

use std::fmt;
use std::fs::File;
use std::num::NonZeroU8;

use object::elf;

use super::object::{HEADER_SIZE, SEGMENT_SIZE, segment_table};
use super::source::{read, u32_at, u64_at};

/// Linkers make ids of 8 to 32 bytes; a longer one is nobody's.
const MAX_BYTES: usize = 32;
/// Bytes of notes in one segment.
const MAX_NOTES: u64 = 64 << 10;
/// Segments of notes that are looked at; files have one to three.
const MAX_NOTE_SEGMENTS: usize = 16;

/// The id that the linker gave an ELF file (NT_GNU_BUILD_ID). Displayed in
/// hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BuildId {
    length: NonZeroU8,
    /// Zeros behind the length.
    bytes: [u8; MAX_BYTES],
}

impl BuildId {
    /// An id of these bytes; `None` for none and for too many.
    pub fn new(id: &[u8]) -> Option<Self> {
        let mut bytes = [0; MAX_BYTES];
        bytes.get_mut(..id.len())?.copy_from_slice(id);
        Some(Self { length: NonZeroU8::new(id.len() as u8)?, bytes })
    }

    /// The id of a file; `None` if it has none or is no ELF file of a kind that
    /// leakd reads.
    pub fn of(file: &File) -> Option<Self> {
        let header = read(file, 0, HEADER_SIZE).ok()?;
        let (class, encoding) = (elf::ELFCLASS64.0, elf::ELFDATA2LSB.0);
        if !header.starts_with(&elf::ELFMAG) || header.get(4..6)? != [class, encoding] {
            return None;
        }
        Self::in_segments(file, &segment_table(file, &header).ok()?)
    }

    /// The id in the notes that a table of program headers names. Damage there
    /// costs the id and no more.
    pub(super) fn in_segments(file: &File, table: &[u8]) -> Option<Self> {
        let segments = table.chunks_exact(SEGMENT_SIZE as usize);
        let notes = segments.filter(|entry| elf::ProgramType(u32_at(entry, 0)) == elf::PT_NOTE);
        notes.take(MAX_NOTE_SEGMENTS).find_map(|entry| {
            let (offset, size) = (u64_at(entry, 8), u64_at(entry, 32));
            if size > MAX_NOTES {
                return None;
            }
            Self::in_notes(&read(file, offset, size).ok()?)
        })
    }

    /// Finds NT_GNU_BUILD_ID among notes (generic ABI: three 4-byte words, then
    /// name and descriptor, each padded to 4 bytes).
    fn in_notes(notes: &[u8]) -> Option<Self> {
        let mut rest = notes;
        while rest.len() >= 12 {
            let name_size = u32_at(rest, 0) as usize;
            let descriptor_size = u32_at(rest, 4) as usize;
            let kind = u32_at(rest, 8);
            let descriptor = name_size.checked_next_multiple_of(4)?.checked_add(12)?;
            let end = descriptor.checked_add(descriptor_size)?;
            if kind == elf::NT_GNU_BUILD_ID.0
                && rest.get(12..12 + 4)? == b"GNU\0"
                && let Some(id) = Self::new(rest.get(descriptor..end)?)
            {
                return Some(id);
            }
            rest = rest.get(end.checked_next_multiple_of(4)?..)?;
        }
        None
    }

    /// Its bytes, one at least.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length.get())]
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes().iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for BuildId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "BuildId({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn note(name: &[u8], descriptor: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [name.len() as u32, descriptor.len() as u32, elf::NT_GNU_BUILD_ID.0] {
            bytes.extend(word.to_le_bytes());
        }
        for part in [name, descriptor] {
            bytes.extend(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    /// Check that the id is found behind other notes, one without bytes and one
    /// with too many among them.
    #[test]
    fn among_other_notes() {
        let id = [0xc0, 0xff, 0xee];
        let notes = [
            note(b"XYZ\0", &[1; 20]),
            note(b"GNU\0", &[]),
            note(b"GNU\0", &[2; MAX_BYTES + 1]),
            note(b"GNU\0", &id),
            note(b"GNU\0", &[3; 20]),
        ];
        let found = BuildId::in_notes(&notes.concat()).unwrap();
        assert_eq!((found.bytes(), found.to_string()), (&id[..], "c0ffee".to_owned()));
        assert_eq!(BuildId::in_notes(&notes[..3].concat()), None);
        assert_ne!(BuildId::new(&[1]), BuildId::new(&[1, 0]));
    }

    proptest! {
        /// Check that whatever stands in the place of notes is survived.
        #[test]
        fn noise(mut notes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = BuildId::in_notes(&notes);
            // Sizes that may fit.
            for at in [1, 2, 3, 5, 6, 7] {
                if let Some(byte) = notes.get_mut(at) {
                    *byte = 0;
                }
            }
            let _ = BuildId::in_notes(&notes);
        }
    }
}
