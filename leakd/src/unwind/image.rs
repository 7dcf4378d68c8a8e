//! The parts of an ELF file that a table is made from.
//!
//! Nothing is mapped into memory: whoever owns the file can shorten it, and a
//! mapping would then kill the reader with SIGBUS. All reads are bounded by the
//! limits for one file, and no length in the file is believed before it is checked.

use std::borrow::Cow;
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use object::elf;
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use object::read::{ReadCache, ReadCacheOps, ReadRef};
use object::{CompressedData, CompressionFormat, LittleEndian};

use crate::unwind::ConvertError;
use crate::unwind::limits::Budget;

type Header = elf::FileHeader64<LittleEndian>;

/// Headers and section names together; more is not read.
const MAX_HEADER_BYTES: u64 = 8 << 20;
/// What the cache reads for a short string.
const STRING_BYTES: u64 = 256;
/// More sections than this are not looked at; linkers make a few dozen.
const MAX_SECTIONS: usize = 16 << 10;
/// More segments than this are not looked at.
const MAX_SEGMENTS: usize = 256;

/// A processor architecture whose frames can be walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// AMD64.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

/// A loadable segment (PT_LOAD).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins in the file.
    pub file_offset: u64,
    /// Bytes in the file.
    pub file_size: u64,
    /// Virtual address as the file counts it.
    pub address: u64,
    /// Bytes in memory.
    pub memory_size: u64,
    /// Whether it is executable (PF_X).
    pub executable: bool,
}

/// Address in a process minus virtual address in the file, for a mapping that
/// begins at `begin` and shows the file from `file_offset` on. `None` where no
/// segment covers that offset.
///
/// The loader maps whole pages, so a segment also covers what is in front of it
/// in its first page; the executable one wins where two share a page.
pub fn bias(segments: &[Segment], begin: u64, file_offset: u64) -> Option<u64> {
    const PAGE_MASK: u64 = 0xfff;
    let covers = |segment: &&Segment| {
        let end = segment.file_offset.saturating_add(segment.file_size);
        (segment.file_offset & !PAGE_MASK..end).contains(&file_offset)
    };
    let segment = segments.iter().filter(covers).max_by_key(|segment| segment.executable)?;
    let address = segment.address.wrapping_sub(segment.file_offset).wrapping_add(file_offset);
    Some(begin.wrapping_sub(address))
}

/// Which of the two formats a section has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FrameFormat {
    /// As in the System V ABI and the LSB.
    EhFrame,
    /// As in the DWARF standard.
    DebugFrame,
}

/// A section of call frame information.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameSection {
    /// How to read it.
    pub format: FrameFormat,
    /// Its virtual address.
    pub address: u64,
    /// Its bytes, decompressed.
    pub data: Vec<u8>,
    /// Whether an entry of length 0 ends it. Not so where the section's size
    /// is known: some linkers put such entries in the middle.
    pub ends_at_zero: bool,
}

/// The parts of an ELF file that a table is made from.
#[derive(Clone, Debug)]
pub struct ElfImage {
    /// Decides the meaning of register numbers.
    pub architecture: Architecture,
    /// In the order of the file.
    pub segments: Vec<Segment>,
    /// .eh_frame first.
    pub frames: Vec<FrameSection>,
    /// Address of .text, base of text-relative pointers.
    pub text_address: Option<u64>,
    /// Address of .got, base of data-relative pointers.
    pub got_address: Option<u64>,
}

/// Bytes that can be read at an offset: a file, or memory.
pub trait ReadAt {
    /// As [`FileExt::read_at`].
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Bytes in all.
    fn size(&self) -> io::Result<u64>;

    /// Fills the buffer; UnexpectedEof if there is less.
    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(buffer, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    buffer = &mut buffer[read..];
                    offset += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..));
        let rest = rest.unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

/// A position in a [`ReadAt`], for the cache of the `object` crate. Unlike
/// seeking, it leaves the file's own position alone.
struct Positioned<'a, R: ?Sized> {
    source: &'a R,
    position: u64,
}

impl<R: ReadAt + ?Sized> ReadCacheOps for Positioned<'_, R> {
    fn len(&mut self) -> Result<u64, ()> {
        self.source.size().map_err(drop)
    }

    fn seek(&mut self, position: u64) -> Result<u64, ()> {
        self.position = position;
        Ok(position)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ()> {
        let read = self.source.read_at(buffer, self.position).map_err(drop)?;
        self.position += read as u64;
        Ok(read)
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), ()> {
        self.source.read_exact_at(buffer, self.position).map_err(drop)?;
        self.position += buffer.len() as u64;
        Ok(())
    }
}

/// The cache allocates before it reads, so a sparse file with a large header
/// table could make it take any amount of memory: refuse large reads first.
struct Capped<'a, R: ReadAt + ?Sized> {
    cache: ReadCache<Positioned<'a, R>>,
    bytes_left: Cell<u64>,
}

impl<'a, R: ReadAt + ?Sized> Capped<'a, R> {
    fn new(source: &'a R, bytes: u64) -> Self {
        let cache = ReadCache::new(Positioned { source, position: 0 });
        Self { cache, bytes_left: Cell::new(bytes) }
    }

    fn take(&self, bytes: u64) -> Result<(), ()> {
        self.bytes_left.set(self.bytes_left.get().checked_sub(bytes).ok_or(())?);
        Ok(())
    }
}

impl<'a, 's, R: ReadAt + ?Sized> ReadRef<'a> for &'a Capped<'s, R> {
    fn len(self) -> Result<u64, ()> {
        (&self.cache).len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        self.take(size)?;
        (&self.cache).read_bytes_at(offset, size)
    }

    fn read_bytes_at_until(
        self,
        range: std::ops::Range<u64>,
        delimiter: u8,
    ) -> Result<&'a [u8], ()> {
        self.take(STRING_BYTES)?;
        (&self.cache).read_bytes_at_until(range, delimiter)
    }
}

/// Checks the first bytes, so that what is no ELF file is called so.
fn check_identification<R: ReadAt + ?Sized>(source: &R) -> Result<(), ConvertError> {
    let mut identification = [0; 16];
    match source.read_exact_at(&mut identification, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(ConvertError::NotElf);
        }
        other => other?,
    }
    if identification[..4] != elf::ELFMAG {
        return Err(ConvertError::NotElf);
    }
    // EI_CLASS and EI_DATA.
    if identification[4..6] != [2, 1] {
        return Err(ConvertError::WrongClass);
    }
    Ok(())
}

fn damaged(what: &'static str) -> impl FnOnce(object::Error) -> ConvertError {
    move |_| ConvertError::Damaged(what)
}

impl ElfImage {
    /// Reads an image with limits of its own; [`crate::unwind::convert`] is the
    /// usual way.
    pub(crate) fn read<R: ReadAt + ?Sized>(
        source: &R,
        budget: &mut Budget,
    ) -> Result<Self, ConvertError> {
        check_identification(source)?;
        budget.take_bytes("the headers", MAX_HEADER_BYTES)?;
        let cache = Capped::new(source, MAX_HEADER_BYTES);
        let header = Header::parse(&cache).map_err(damaged("the header"))?;
        let architecture = match header.e_machine(LittleEndian) {
            elf::EM_X86_64 => Architecture::X86_64,
            elf::EM_AARCH64 => Architecture::Aarch64,
            other => return Err(ConvertError::UnsupportedMachine(other.0)),
        };
        let headers =
            header.program_headers(LittleEndian, &cache).map_err(damaged("the program headers"))?;
        let segments = load_segments(headers);
        if !segments.iter().any(|segment| segment.executable) {
            return Err(ConvertError::NoText);
        }
        let mut image = Self {
            architecture,
            segments,
            frames: Vec::new(),
            text_address: None,
            got_address: None,
        };
        image.read_sections(source, header, &cache, budget)?;
        if image.frames.is_empty() {
            image.read_behind_index(source, headers, budget)?;
        }
        if image.frames.is_empty() { Err(ConvertError::NoFrames) } else { Ok(image) }
    }

    /// Finds the sections by name.
    fn read_sections<R: ReadAt + ?Sized>(
        &mut self,
        source: &R,
        header: &Header,
        cache: &Capped<'_, R>,
        budget: &mut Budget,
    ) -> Result<(), ConvertError> {
        // A file may do without section headers, and they may be rubbish
        // without harm to the program: go on without them.
        let Ok(sections) = header.sections(LittleEndian, cache) else { return Ok(()) };
        let mut unread = None;
        for section in sections.iter().take(MAX_SECTIONS) {
            // A name costs a read of 256 bytes.
            budget.spend(STRING_BYTES)?;
            let address = section.sh_addr(LittleEndian);
            let format = match sections.section_name(LittleEndian, section) {
                Ok(b".text") => {
                    self.text_address.get_or_insert(address);
                    continue;
                }
                Ok(b".got") => {
                    self.got_address.get_or_insert(address);
                    continue;
                }
                Ok(b".eh_frame") => FrameFormat::EhFrame,
                Ok(b".debug_frame") => FrameFormat::DebugFrame,
                _ => continue,
            };
            let known = self.frames.iter().any(|section| section.format == format);
            let Some((offset, size)) = section.file_range(LittleEndian) else { continue };
            if known || size == 0 {
                continue;
            }
            let compressed = section.sh_flags(LittleEndian).contains(elf::SHF_COMPRESSED);
            match read_section(source, offset, size, compressed, budget) {
                Ok(data) => {
                    self.frames.push(FrameSection { format, address, data, ends_at_zero: false });
                }
                // Often larger, and seldom needed.
                Err(error) if format == FrameFormat::DebugFrame => unread = Some(error),
                Err(error) => return Err(error),
            }
        }
        self.frames.sort_by_key(|section| section.format);
        match unread {
            Some(error) if self.frames.is_empty() => Err(error),
            _ => Ok(()),
        }
    }

    /// Finds .eh_frame in a file without section headers: PT_GNU_EH_FRAME tells
    /// where .eh_frame_hdr is, and that where .eh_frame begins.
    fn read_behind_index<R: ReadAt + ?Sized>(
        &mut self,
        source: &R,
        headers: &[elf::ProgramHeader64<LittleEndian>],
        budget: &mut Budget,
    ) -> Result<(), ConvertError> {
        let mut headers = headers.iter().take(MAX_SEGMENTS);
        let Some(index) =
            headers.find(|header| header.p_type(LittleEndian) == elf::PT_GNU_EH_FRAME)
        else {
            return Ok(());
        };
        let index_address = index.p_vaddr(LittleEndian);
        // Version, three encodings, and a pointer of 8 bytes at most.
        let mut bytes = [0; 12];
        source.read_exact_at(&mut bytes, index.p_offset(LittleEndian))?;
        let bases = gimli::BaseAddresses::default().set_eh_frame_hdr(index_address);
        let index = gimli::EhFrameHdr::new(&bytes, gimli::LittleEndian);
        let Ok(Ok(address)) = index.parse(&bases, 8).map(|index| index.eh_frame_ptr().direct())
        else {
            return Ok(());
        };
        for segment in &self.segments {
            let Some(skipped) = address.checked_sub(segment.address) else { continue };
            let Some(size) = segment.file_size.checked_sub(skipped) else { continue };
            let Some(offset) = segment.file_offset.checked_add(skipped) else { continue };
            if size == 0 {
                continue;
            }
            let data = read_bytes(source, offset, size, budget)?;
            let format = FrameFormat::EhFrame;
            self.frames.push(FrameSection { format, address, data, ends_at_zero: true });
            break;
        }
        Ok(())
    }
}

fn load_segments(headers: &[elf::ProgramHeader64<LittleEndian>]) -> Vec<Segment> {
    let headers = headers.iter().take(MAX_SEGMENTS);
    headers
        .filter(|header| header.p_type(LittleEndian) == elf::PT_LOAD)
        .map(|header| Segment {
            file_offset: header.p_offset(LittleEndian),
            file_size: header.p_filesz(LittleEndian),
            address: header.p_vaddr(LittleEndian),
            memory_size: header.p_memsz(LittleEndian),
            executable: header.p_flags(LittleEndian) & elf::PF_X == elf::PF_X,
        })
        .collect()
}

/// Reads a section and decompresses it.
fn read_section<R: ReadAt + ?Sized>(
    source: &R,
    offset: u64,
    size: u64,
    compressed: bool,
    budget: &mut Budget,
) -> Result<Vec<u8>, ConvertError> {
    let raw = read_bytes(source, offset, size, budget)?;
    if compressed { decompress(&raw, budget) } else { Ok(raw) }
}

/// Reads a part of the file, after its size has been held against file and budget.
fn read_bytes<R: ReadAt + ?Sized>(
    source: &R,
    offset: u64,
    size: u64,
    budget: &mut Budget,
) -> Result<Vec<u8>, ConvertError> {
    let end = offset.checked_add(size);
    if end.is_none_or(|end| source.size().is_ok_and(|whole| end > whole)) {
        return Err(ConvertError::Damaged("a section ends behind the file"));
    }
    budget.take_bytes("a section", size)?;
    let mut bytes = vec![0; size as usize];
    source.read_exact_at(&mut bytes, offset)?;
    // Reading may have waited for a disk.
    budget.spend(u64::from(u32::MAX))?;
    Ok(bytes)
}

/// Decompresses a section that begins with an ELF compression header.
fn decompress(raw: &[u8], budget: &mut Budget) -> Result<Vec<u8>, ConvertError> {
    const BAD: ConvertError = ConvertError::Damaged("a compressed section");
    let (header, data) =
        raw.split_at_checked(size_of::<elf::CompressionHeader64<LittleEndian>>()).ok_or(BAD)?;
    let format = match u32::from_le_bytes(header[..4].try_into().map_err(|_| BAD)?) {
        1 => CompressionFormat::Zlib,
        2 => CompressionFormat::Zstandard,
        _ => return Err(BAD),
    };
    let uncompressed_size = u64::from_le_bytes(header[8..16].try_into().map_err(|_| BAD)?);
    budget.take_bytes("a compressed section", uncompressed_size)?;
    // Writes no more than the size it is given, which the budget has seen.
    match (CompressedData { format, data, uncompressed_size }).decompress() {
        Ok(Cow::Owned(bytes)) => {
            budget.spend(u64::from(u32::MAX))?;
            Ok(bytes)
        }
        _ => Err(BAD),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(file_offset: u64, file_size: u64, address: u64, executable: bool) -> Segment {
        Segment { file_offset, file_size, address, memory_size: file_size, executable }
    }

    /// Check the way from file offsets to addresses: where segments share a page
    /// the executable one counts, and outside of all there is no answer.
    #[test]
    fn biases() {
        // As lld lays files out: each segment one page further on.
        let segments = [
            segment(0, 0x1234, 0, false),
            segment(0x1240, 0x5000, 0x2240, true),
            segment(0x6240, 0x100, 0x8240, false),
        ];
        assert_eq!(bias(&segments, 0x7f00_0000_2000, 0x1000), Some(0x7f00_0000_0000));
        assert_eq!(bias(&segments, 0x7f00_0000_4000, 0x3000), Some(0x7f00_0000_0000));
        assert_eq!(bias(&segments, 0x7f00_0000_0000, 0), Some(0x7f00_0000_0000));
        assert_eq!(bias(&segments, 0x7f00_0000_0000, 0x7000), None);
        // A fixed address, and a segment that would reach behind the end of the
        // address space.
        assert_eq!(bias(&[segment(0x1000, 0x1000, 0x40_1000, true)], 0x40_1000, 0x1000), Some(0));
        let wild = [segment(u64::MAX - 0xfff, u64::MAX, u64::MAX, true)];
        assert_eq!(bias(&wild, 0x1000, 0x1000), None);
        assert!(bias(&wild, 0x1000, u64::MAX - 1).is_some());
    }
}
