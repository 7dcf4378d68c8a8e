//! The headers of an ELF file and what follows from them.

use std::fs::File;
use std::os::unix::fs::FileTypeExt;

use object::elf;

use super::source::{limited, read, u16_at, u32_at, u64_at};
use super::{BuildId, ElfError};

pub(super) const HEADER_SIZE: u64 = 64;
pub(super) const SEGMENT_SIZE: u64 = 56;
const SECTION_SIZE: u64 = 64;
/// The kernel itself takes no more program headers than fit in 64 KiB.
const MAX_SEGMENTS: u64 = 65_536 / SEGMENT_SIZE;
const MAX_SECTIONS: u64 = 65_536;
const MAX_DYNAMIC: u64 = 1 << 20;
const MAX_SONAME: u64 = 256;
/// In DT_FLAGS_1: a position-independent executable.
const DF_1_PIE: u64 = 0x0800_0000;

/// The machine whose code an object holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Machine {
    /// x86-64.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

impl Machine {
    /// The machine that this program was built for.
    pub const OWN: Self = if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 };

    /// The machine with this `e_machine`.
    pub const fn from_number(number: u16) -> Option<Self> {
        match elf::Machine(number) {
            elf::EM_X86_64 => Some(Self::X86_64),
            elf::EM_AARCH64 => Some(Self::Aarch64),
            _ => None,
        }
    }
}

/// `e_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileType {
    /// An executable at fixed addresses.
    Executable,
    /// A shared object or a position-independent executable.
    Shared,
    /// An object file, a core dump or something unknown.
    Other(u16),
}

/// A PT_LOAD program header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it lies in memory, before relocation.
    pub address: u64,
    /// Bytes in memory.
    pub memory_size: u64,
    /// Where it lies in the file.
    pub offset: u64,
    /// Bytes in the file.
    pub file_size: u64,
    /// Whether it may be executed.
    pub executable: bool,
}

/// A section header, as far as it is used here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section {
    pub kind: u32,
    pub offset: u64,
    pub size: u64,
    pub link: u32,
}

/// An ELF file whose headers have been read and checked. Tables are read from
/// the file when they are asked for.
#[derive(Debug)]
pub struct ElfObject {
    pub(super) file: File,
    pub(super) sections: Vec<Section>,
    pub(super) segments: Vec<Segment>,
    machine: Machine,
    file_type: FileType,
    entry: u64,
    interpreter: bool,
    /// `DF_1_PIE`: a program, though its type is that of a shared library.
    independent_program: bool,
    build_id: Option<BuildId>,
    soname: Option<String>,
}

impl ElfObject {
    /// Reads the headers of a 64-bit little-endian ELF file.
    ///
    /// # Errors
    /// See [`ElfError`]; the file itself is never changed.
    pub fn read(file: &File) -> Result<Self, ElfError> {
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.file_type().is_fifo() {
            return Err(ElfError::NotRegular);
        }
        if metadata.len() < elf::ELFMAG.len() as u64 {
            return Err(ElfError::NotElf);
        }
        let start = read(file, 0, HEADER_SIZE.min(metadata.len()))?;
        if !start.starts_with(&elf::ELFMAG) {
            return Err(ElfError::NotElf);
        }
        match start.get(4).copied().map(elf::FileClass) {
            Some(elf::ELFCLASS64) => {}
            Some(elf::ELFCLASS32) => return Err(ElfError::Not64Bit),
            _ => return Err(ElfError::Damaged("its class is neither 32-bit nor 64-bit")),
        }
        match start.get(5).copied().map(elf::DataEncoding) {
            Some(elf::ELFDATA2LSB) => {}
            Some(elf::ELFDATA2MSB) => return Err(ElfError::BigEndian),
            _ => return Err(ElfError::Damaged("its byte order is neither little nor big")),
        }
        if start.len() < HEADER_SIZE as usize {
            return Err(ElfError::Damaged("it ends within the header"));
        }
        let machine_number = u16_at(&start, 18);
        let machine =
            Machine::from_number(machine_number).ok_or(ElfError::Machine(machine_number))?;
        let file_type = match elf::FileType(u16_at(&start, 16)) {
            elf::ET_EXEC => FileType::Executable,
            elf::ET_DYN => FileType::Shared,
            other => FileType::Other(other.0),
        };
        let mut object = Self {
            file: file.try_clone()?,
            sections: read_sections(file, &start)?,
            segments: Vec::new(),
            machine,
            file_type,
            entry: u64_at(&start, 24),
            interpreter: false,
            independent_program: false,
            build_id: None,
            soname: None,
        };
        object.read_segments(&start)?;
        Ok(object)
    }

    fn read_segments(&mut self, header: &[u8]) -> Result<(), ElfError> {
        let table = segment_table(&self.file, header)?;
        let mut dynamic = None;
        for entry in table.chunks_exact(SEGMENT_SIZE as usize) {
            let segment = Segment {
                offset: u64_at(entry, 8),
                address: u64_at(entry, 16),
                file_size: u64_at(entry, 32),
                memory_size: u64_at(entry, 40),
                executable: u32_at(entry, 4) & elf::PF_X.0 != 0,
            };
            match elf::ProgramType(u32_at(entry, 0)) {
                elf::PT_LOAD => self.segments.push(segment),
                elf::PT_INTERP => self.interpreter = true,
                elf::PT_DYNAMIC => dynamic = Some(segment),
                _ => {}
            }
        }
        self.build_id = BuildId::in_segments(&self.file, &table);
        if let Some(segment) = dynamic {
            // Damage there costs the name, not the whole object.
            let _ = self.read_dynamic(segment);
        }
        Ok(())
    }

    fn read_dynamic(&mut self, dynamic: Segment) -> Result<(), ElfError> {
        limited("bytes of dynamic section", dynamic.file_size, MAX_DYNAMIC)?;
        let table = read(&self.file, dynamic.offset, dynamic.file_size)?;
        let (mut name, mut strings) = (None, None);
        for entry in table.chunks_exact(16) {
            let value = u64_at(entry, 8);
            match elf::DynamicTag(u64_at(entry, 0) as i64) {
                elf::DT_NULL => break,
                elf::DT_SONAME => name = Some(value),
                elf::DT_STRTAB => strings = Some(value),
                elf::DT_FLAGS_1 => self.independent_program = value & DF_1_PIE != 0,
                _ => {}
            }
        }
        let (Some(name), Some(strings)) = (name, strings) else { return Ok(()) };
        let address = strings.checked_add(name);
        let Some(offset) = address.and_then(|address| self.address_to_file_offset(address)) else {
            return Ok(());
        };
        let length = self.file.metadata()?.len().saturating_sub(offset).min(MAX_SONAME);
        let bytes = read(&self.file, offset, length)?;
        let end = bytes.iter().position(|byte| *byte == 0);
        self.soname = end.and_then(|end| String::from_utf8(bytes[..end].to_vec()).ok());
        Ok(())
    }

    /// The machine whose code it holds.
    pub fn machine(&self) -> Machine {
        self.machine
    }

    /// What kind of ELF file it is.
    pub fn file_type(&self) -> FileType {
        self.file_type
    }

    /// The address of the entry point, before relocation.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// Whether it names a program interpreter: a dynamically linked program
    /// does; a static one and most shared libraries do not.
    pub fn has_interpreter(&self) -> bool {
        self.interpreter
    }

    /// Whether it is a program that brings all its code along.
    pub fn is_static_program(&self) -> bool {
        let program = self.file_type == FileType::Executable || self.independent_program;
        program && !self.interpreter
    }

    /// The GNU build id.
    pub fn build_id(&self) -> Option<BuildId> {
        self.build_id
    }

    /// The name under which a shared library wants to be known. As it stands
    /// in the file: strip control characters before it reaches a terminal.
    pub fn soname(&self) -> Option<&str> {
        self.soname.as_deref()
    }

    /// The PT_LOAD segments, in the order of the program headers.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Where the byte at an address (before relocation) is in the file.
    pub fn address_to_file_offset(&self, address: u64) -> Option<u64> {
        self.segments.iter().find_map(|segment| {
            let within = address.checked_sub(segment.address)?;
            if within >= segment.file_size {
                return None;
            }
            segment.offset.checked_add(within)
        })
    }

    /// The address (before relocation) of the byte at a file offset.
    pub fn file_offset_to_address(&self, offset: u64) -> Option<u64> {
        self.segments.iter().find_map(|segment| {
            let within = offset.checked_sub(segment.offset)?;
            if within >= segment.file_size {
                return None;
            }
            segment.address.checked_add(within)
        })
    }

    /// Up to `length` bytes of code at an address; fewer where the executable
    /// segment ends.
    ///
    /// # Errors
    /// [`ElfError::Damaged`] if no executable segment holds the address.
    pub fn code_at(&self, address: u64, length: usize) -> Result<Vec<u8>, ElfError> {
        const MAX_CODE: u64 = 1 << 20;
        let segment = self
            .segments
            .iter()
            .find(|segment| {
                segment.executable
                    && address
                        .checked_sub(segment.address)
                        .is_some_and(|within| within < segment.file_size)
            })
            .ok_or(ElfError::Damaged("an address lies outside the executable segments"))?;
        let within = address - segment.address;
        let length = (length as u64).min(segment.file_size - within).min(MAX_CODE);
        let offset =
            segment.offset.checked_add(within).ok_or(ElfError::Damaged("an offset overflows"))?;
        read(&self.file, offset, length)
    }
}

/// The program headers as they stand in the file: [`SEGMENT_SIZE`] bytes each.
pub(super) fn segment_table(file: &File, header: &[u8]) -> Result<Vec<u8>, ElfError> {
    let count = u64::from(u16_at(header, 56));
    if count == 0 {
        return Ok(Vec::new());
    }
    if u64::from(u16_at(header, 54)) != SEGMENT_SIZE {
        return Err(ElfError::Damaged("its program headers have an unknown size"));
    }
    limited("program headers", count, MAX_SEGMENTS)?;
    read(file, u64_at(header, 32), count * SEGMENT_SIZE)
}

fn read_sections(file: &File, header: &[u8]) -> Result<Vec<Section>, ElfError> {
    let offset = u64_at(header, 40);
    if offset == 0 {
        return Ok(Vec::new());
    }
    if u64::from(u16_at(header, 58)) != SECTION_SIZE {
        return Err(ElfError::Damaged("its section headers have an unknown size"));
    }
    let mut count = u64::from(u16_at(header, 60));
    if count == 0 {
        // More than 65,279 sections: the first header holds the number.
        count = u64_at(&read(file, offset, SECTION_SIZE)?, 32);
    }
    limited("sections", count, MAX_SECTIONS)?;
    let table = read(file, offset, count * SECTION_SIZE)?;
    let section = |entry: &[u8]| Section {
        kind: u32_at(entry, 4),
        offset: u64_at(entry, 24),
        size: u64_at(entry, 32),
        link: u32_at(entry, 40),
    };
    Ok(table.chunks_exact(SECTION_SIZE as usize).map(section).collect())
}
