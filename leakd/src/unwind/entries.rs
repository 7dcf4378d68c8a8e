//! Walks a section of call frame information and lists its frame description
//! entries (FDEs).
//!
//! An entry is a length, then an id that tells a common information entry (CIE)
//! from an FDE, then the rest. One bad entry does not spoil those behind it:
//! the walk goes by the lengths alone.

use std::collections::HashMap;

use gimli::{
    BaseAddresses, CommonInformationEntry, EndianSlice, FrameDescriptionEntry, LittleEndian,
    UnwindOffset, UnwindSection,
};

use crate::unwind::ConvertError;
use crate::unwind::image::{FrameFormat, FrameSection};
use crate::unwind::limits::Budget;
use crate::unwind::table::TableStats;

pub(crate) type Bytes<'data> = EndianSlice<'data, LittleEndian>;
pub(crate) type Cie<'data> = CommonInformationEntry<Bytes<'data>>;
pub(crate) type Fde<'data> = FrameDescriptionEntry<Bytes<'data>>;

/// Longer entries are not read. Their instructions run between two looks at
/// the clock, and a CIE's run again for each FDE. The largest seen in a real
/// file: 50 KB.
const MAX_ENTRY: u64 = 1 << 20;
/// CIEs that are kept parsed; real files have some dozens.
const MAX_CACHED_CIES: usize = 4096;

/// An FDE's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FdeRange {
    /// First address.
    pub(crate) begin: u64,
    /// .eh_frame wins where both formats describe an address.
    pub(crate) format: FrameFormat,
    /// Offset in the section.
    pub(crate) offset: u32,
    /// First address behind it.
    pub(crate) end: u64,
}

/// One section with the CIEs that have been met.
pub(crate) struct Entries<'data, S> {
    pub(crate) section: S,
    pub(crate) bases: &'data BaseAddresses,
    cies: HashMap<usize, Cie<'data>>,
}

impl<'data, S: UnwindSection<Bytes<'data>>> Entries<'data, S> {
    pub(crate) fn new(section: S, bases: &'data BaseAddresses) -> Self {
        Self { section, bases, cies: HashMap::new() }
    }

    /// Adds the ranges of all FDEs that are in order to `ranges`, unsorted.
    pub(crate) fn list(
        &mut self,
        frames: &FrameSection,
        ranges: &mut Vec<FdeRange>,
        stats: &mut TableStats,
        budget: &mut Budget,
    ) -> Result<(), ConvertError> {
        let mut at = 0;
        while let Some(entry) = entry_at(frames, at) {
            budget.spend(64)?;
            let offset = at;
            at = entry.end;
            if entry.is_cie || entry.length == 0 {
                if entry.length == 0 && frames.ends_at_zero {
                    break;
                }
                continue;
            }
            stats.entries += 1;
            let fde = if entry.length > MAX_ENTRY { None } else { self.fde(offset) };
            let Some((fde, offset)) = fde.zip(u32::try_from(offset).ok()) else {
                stats.bad_entries += 1;
                continue;
            };
            let begin = fde.initial_address();
            match begin.checked_add(fde.len()) {
                Some(end) if end > begin => {
                    budget.grow("the list of entries", ranges)?;
                    ranges.push(FdeRange { begin, format: frames.format, offset, end });
                }
                // Code that the linker has thrown away.
                Some(_) => {}
                None => stats.bad_entries += 1,
            }
        }
        Ok(())
    }

    /// The FDE at an offset, with its CIE.
    pub(crate) fn fde(&mut self, offset: usize) -> Option<Fde<'data>> {
        let partial = self.section.partial_fde_from_offset(self.bases, offset.into()).ok()?;
        let cies = &mut self.cies;
        let fde = partial.parse(|section, bases, cie_offset| {
            let key: usize = UnwindOffset::into(cie_offset);
            if let Some(cie) = cies.get(&key) {
                return Ok(cie.clone());
            }
            let cie = section.cie_from_offset(bases, cie_offset)?;
            if cie.entry_len() as u64 > MAX_ENTRY {
                return Err(gimli::Error::OffsetOutOfBounds(key as u64));
            }
            if cies.len() < MAX_CACHED_CIES {
                cies.insert(key, cie.clone());
            }
            Ok(cie)
        });
        fde.ok()
    }
}

/// The front of an entry.
struct Front {
    is_cie: bool,
    /// Bytes behind the length field.
    length: u64,
    /// Where the next entry begins.
    end: usize,
}

/// The entry at `at`; `None` where the section ends, or the length points
/// behind it, so that no further entry can be found.
fn entry_at(frames: &FrameSection, at: usize) -> Option<Front> {
    let rest = frames.data.get(at..)?;
    let short = u32::from_le_bytes(rest.get(..4)?.try_into().ok()?);
    // 64-bit DWARF.
    let (length, width) = if short == u32::MAX {
        (u64::from_le_bytes(rest.get(4..12)?.try_into().ok()?), 12)
    } else {
        (u64::from(short), 4)
    };
    let body = &rest[width..];
    let end = usize::try_from(length).ok().filter(|&length| length <= body.len())?;
    let end = at + width + end;
    // The id is 4 bytes in .eh_frame, always; in .debug_frame it is as wide as
    // the length.
    let is_cie = match (frames.format, short == u32::MAX) {
        (FrameFormat::EhFrame, _) => body.get(..4) == Some(&[0; 4]),
        (FrameFormat::DebugFrame, false) => body.get(..4) == Some(&[0xff; 4]),
        (FrameFormat::DebugFrame, true) => body.get(..8) == Some(&[0xff; 8]),
    };
    Some(Front { is_cie, length, end })
}
