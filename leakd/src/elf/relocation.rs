//! Which slots of the global offset table stand for which functions.

use std::collections::HashMap;

use object::elf;

use super::source::{CHUNK, Deadline, limited, read, u64_at};
use super::{ElfError, ElfObject, Machine};

const RELOCATION_SIZE: u64 = 24;
const MAX_RELOCATIONS: u64 = 16 << 20;
const MAX_SLOTS: usize = 65_536;

impl ElfObject {
    /// The addresses (before relocation) of the slots through which the
    /// object calls these functions: slot -> index of the name. Calls by way
    /// of the procedure linkage table go through such a slot.
    ///
    /// # Errors
    /// See [`ElfError`].
    pub fn find_call_slots(&self, names: &[&str]) -> Result<HashMap<u64, usize>, ElfError> {
        let deadline = Deadline::start();
        let mut by_symbol = HashMap::new();
        self.rows(elf::SHT_DYNSYM, names, deadline, |row| {
            by_symbol.insert(row.index, row.name);
        })?;
        let mut slots = HashMap::new();
        if by_symbol.is_empty() {
            return Ok(slots);
        }
        for table in self.sections.iter().filter(|section| section.kind == elf::SHT_RELA.0) {
            // Relocation tables of the linker's own (--emit-relocs) refer to
            // .symtab: their symbol numbers mean something else.
            let symbols = usize::try_from(table.link).ok().and_then(|link| self.sections.get(link));
            if symbols.is_none_or(|symbols| symbols.kind != elf::SHT_DYNSYM.0) {
                continue;
            }
            limited("relocations", table.size / RELOCATION_SIZE, MAX_RELOCATIONS)?;
            let size = table.size - table.size % RELOCATION_SIZE;
            let mut done = 0;
            while done < size {
                deadline.check()?;
                let length = CHUNK.min(size - done);
                let offset = table.offset.checked_add(done);
                let offset = offset.ok_or(ElfError::Damaged("an offset overflows"))?;
                for entry in
                    read(&self.file, offset, length)?.chunks_exact(RELOCATION_SIZE as usize)
                {
                    let info = u64_at(entry, 8);
                    if self.fills_slot(info as u32)
                        && let Some(name) = by_symbol.get(&(info >> 32))
                        && slots.len() < MAX_SLOTS
                    {
                        slots.insert(u64_at(entry, 0), *name);
                    }
                }
                done += length;
            }
        }
        Ok(slots)
    }

    fn fills_slot(&self, relocation: u32) -> bool {
        let relocation = elf::RelocationType(relocation);
        match self.machine() {
            Machine::X86_64 => {
                relocation == elf::R_X86_64_JUMP_SLOT || relocation == elf::R_X86_64_GLOB_DAT
            }
            Machine::Aarch64 => {
                relocation == elf::R_AARCH64_JUMP_SLOT || relocation == elf::R_AARCH64_GLOB_DAT
            }
        }
    }
}
