//! An ELF file's call frame information to a [`Table`].

use std::fs::File;

use gimli::{
    BaseAddresses, DebugFrame, EhFrame, LittleEndian, RegisterRule, UnwindContext,
    UnwindContextStorage, UnwindSection, UnwindTableRow,
};
use leakd_common::unwind::Rule;

use crate::elf::FileIdentity;
use crate::unwind::ConvertError;
use crate::unwind::entries::{Bytes, Entries, FdeRange};
use crate::unwind::image::{Architecture, ElfImage, FrameFormat, FrameSection, ReadAt};
use crate::unwind::limits::{Budget, Limits};
use crate::unwind::rule::{Registers, Translator};
use crate::unwind::table::{Table, TableBuilder};

/// Work charged for each row, on top of the bytes of the instructions.
const WORK_PER_ROW: u64 = 16;

/// Storage for gimli: more saved states than the 4 that it has by default.
struct Storage;

impl UnwindContextStorage<usize> for Storage {
    type Rules = [(gimli::Register, RegisterRule<usize>); 192];
    type Stack = Box<[UnwindTableRow<usize, Self>; 8]>;
}

/// Makes the table of a file. It must be a regular one (opened with
/// O_NONBLOCK, so that a FIFO could not hold the opener up).
pub fn convert(file: &File, limits: Limits) -> Result<Table, ConvertError> {
    let before = file.metadata()?;
    if !before.is_file() {
        return Err(ConvertError::NotRegular);
    }
    let table = convert_bytes(file, limits)?;
    let identity = FileIdentity::without_build_id;
    if identity(&before) == identity(&file.metadata()?) {
        Ok(table)
    } else {
        Err(ConvertError::Changed)
    }
}

/// Makes the table of an ELF image that lies in memory or anywhere else.
pub fn convert_bytes<R: ReadAt + ?Sized>(
    source: &R,
    limits: Limits,
) -> Result<Table, ConvertError> {
    let mut budget = Budget::new(limits);
    let image = ElfImage::read(source, &mut budget)?;
    convert_within(&image, &mut budget)
}

/// Makes the table of an image.
pub fn convert_image(image: &ElfImage, limits: Limits) -> Result<Table, ConvertError> {
    convert_within(image, &mut Budget::new(limits))
}

fn convert_within(image: &ElfImage, budget: &mut Budget) -> Result<Table, ConvertError> {
    let mut bases = BaseAddresses::default();
    if let Some(address) = image.text_address {
        bases = bases.set_text(address);
    }
    if let Some(address) = image.got_address {
        bases = bases.set_got(address);
    }
    // The walk needs both formats side by side; an absent one is empty.
    let [eh_frame, debug_frame] = [FrameFormat::EhFrame, FrameFormat::DebugFrame]
        .map(|format| image.frames.iter().find(|section| section.format == format));
    let bases = bases.set_eh_frame(eh_frame.map_or(0, |section| section.address));
    let mut eh = EhFrame::new(data_of(eh_frame), LittleEndian);
    let mut debug = DebugFrame::new(data_of(debug_frame), LittleEndian);
    eh.set_address_size(8);
    debug.set_address_size(8);
    if image.architecture == Architecture::Aarch64 {
        eh.set_vendor(gimli::Vendor::AArch64);
        debug.set_vendor(gimli::Vendor::AArch64);
    }
    let mut eh = Entries::new(eh, &bases);
    let mut debug = Entries::new(debug, &bases);

    let mut stats = Default::default();
    let mut ranges = Vec::new();
    if let Some(frames) = eh_frame {
        eh.list(frames, &mut ranges, &mut stats, budget)?;
    }
    if let Some(frames) = debug_frame {
        debug.list(frames, &mut ranges, &mut stats, budget)?;
    }
    let listed = ranges.len();
    ranges.retain(|range| is_text(image, range));
    stats.outside = (listed - ranges.len()) as u32;
    ranges.sort_unstable();

    let Some((begin, end)) = span(&ranges) else { return Err(ConvertError::NoEntries) };
    let mut builder = TableBuilder::new(begin, end, budget)?;
    *builder.stats() = stats;
    let registers = Registers::of(image.architecture);
    let mut context = UnwindContext::new_in();
    let mut covered = begin;
    for range in &ranges {
        // What comes first wins. Entries overlap only in damaged files.
        if range.begin < covered {
            builder.stats().overlapping += 1;
            continue;
        }
        if range.begin > covered.saturating_add(padding(covered)) {
            builder.push(covered, Rule::NONE, budget)?;
        }
        covered = range.end;
        match range.format {
            FrameFormat::EhFrame => {
                push_rows(&mut eh, range, registers, &mut context, &mut builder, budget)?;
            }
            FrameFormat::DebugFrame => {
                push_rows(&mut debug, range, registers, &mut context, &mut builder, budget)?;
            }
        }
    }
    builder.push(covered, Rule::NONE, budget)?;
    let mut table = builder.finish(budget)?;
    table.segments.clone_from(&image.segments);
    Ok(table)
}

/// An absent section is an empty one.
fn data_of(section: Option<&FrameSection>) -> &[u8] {
    section.map_or(&[], |section| &section.data)
}

/// Whether a range lies in an executable segment.
fn is_text(image: &ElfImage, range: &FdeRange) -> bool {
    image.segments.iter().filter(|segment| segment.executable).any(|segment| {
        let end = segment.address.saturating_add(segment.memory_size);
        range.begin >= segment.address && range.end <= end
    })
}

/// Bytes from the end of an entry to the next multiple of 16, where a function
/// could begin. Nothing runs there, and without rows for it a table is a fifth
/// smaller.
fn padding(end: u64) -> u64 {
    end.wrapping_neg() % 16
}

/// From the first to the last address of sorted ranges.
fn span(ranges: &[FdeRange]) -> Option<(u64, u64)> {
    let end = ranges.iter().map(|range| range.end).max()?;
    Some((ranges.first()?.begin, end))
}

/// Adds the rows of one FDE. Where its instructions stop making sense, the rest
/// of its range is unsupported.
fn push_rows<'data, S: UnwindSection<Bytes<'data>>>(
    entries: &mut Entries<'data, S>,
    range: &FdeRange,
    registers: Registers,
    context: &mut UnwindContext<usize, Storage>,
    builder: &mut TableBuilder,
    budget: &mut Budget,
) -> Result<(), ConvertError> {
    // From here on, no row has been read.
    let mut unread = range.begin;
    let fde = entries.fde(range.offset as usize);
    let Entries { section, bases, .. } = entries;
    if let Some(fde) = fde {
        // The CIE's instructions run again for each FDE.
        budget.spend((fde.entry_len() + fde.cie().entry_len()) as u64)?;
        let translator = Translator::new(registers, section, &fde);
        if let Ok(mut rows) = fde.rows(section, bases, context) {
            while let Ok(Some(row)) = rows.next_row() {
                budget.spend(WORK_PER_ROW)?;
                let (begin, end) = (row.start_address(), row.end_address());
                if begin >= range.end {
                    break;
                }
                let rule = translator.rule(row);
                builder.stats().unsupported_rows += u32::from(rule == Rule::UNSUPPORTED);
                builder.push(begin, rule, budget)?;
                unread = end;
            }
        }
    }
    if unread < range.end {
        builder.stats().bad_entries += 1;
        builder.push(unread, Rule::UNSUPPORTED, budget)?;
    }
    Ok(())
}
