//! Looking up a set of names in the symbol tables.
//!
//! A debug build of a large program has a million symbols and 100 MB of
//! names, and we look for a few dozen. So no table is loaded: the string table
//! is streamed once to find where the wanted names are, then the symbols are
//! streamed and only their name offsets are compared.

use std::collections::HashMap;

use object::elf;

use super::object::Section;
use super::source::{CHUNK, Deadline, limited, read, u16_at, u32_at, u64_at};
use super::{ElfError, ElfObject};

pub(super) const SYMBOL_SIZE: u64 = 24;
const MAX_SYMBOLS: u64 = 16 << 20;
const MAX_STRINGS: u64 = 1 << 30;
/// Places in a string table where wanted names may be found. Real tables hold
/// each name once, or once for each version and for each longer name that
/// ends in it.
const MAX_PLACES: usize = 65_536;
/// Symbols that may bear the wanted names.
const MAX_FOUND: usize = 65_536;
/// Longer names are never looked for: a C++ function that hands out memory
/// may have a long one, but not this long.
const MAX_NAME: usize = 1024;

/// How visible a symbol is to other objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binding {
    /// Only within its object (`static` functions).
    Local,
    /// To all objects.
    Global,
    /// To all objects, but a global one of that name wins.
    Weak,
    /// Something else (`STB_GNU_UNIQUE` and the like).
    Other(u8),
}

/// A function that an object's symbol tables define.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionSymbol {
    /// Its name, without a version.
    pub name: String,
    /// Its address, before relocation. For an indirect function that of the
    /// *resolver*: there is nothing to be probed there.
    pub address: u64,
    /// Its size in bytes; 0: unknown.
    pub size: u64,
    /// Whether it is an indirect function (`STT_GNU_IFUNC`).
    pub indirect: bool,
    /// How visible it is.
    pub binding: Binding,
}

/// One row of a symbol table whose name is wanted.
pub(super) struct Row {
    pub name: usize,
    pub index: u64,
    pub info: u8,
    pub section: u16,
    pub value: u64,
    pub size: u64,
}

impl ElfObject {
    /// Finds the functions with these names that the object defines, in
    /// .dynsym and .symtab; each (name, address) once. Names of symbols may
    /// carry a version (`malloc@@GLIBC_2.2.5`), which is ignored.
    ///
    /// # Errors
    /// See [`ElfError`]; an object without symbol tables is no error.
    pub fn find_functions(&self, names: &[&str]) -> Result<Vec<FunctionSymbol>, ElfError> {
        let deadline = Deadline::start();
        let mut found: Vec<FunctionSymbol> = Vec::new();
        let mut places: HashMap<(usize, u64), usize> = HashMap::new();
        for kind in [elf::SHT_DYNSYM, elf::SHT_SYMTAB] {
            self.rows(kind, names, deadline, |row| {
                let symbol_type = elf::SymbolType(row.info & 15);
                let indirect = symbol_type == elf::STT_GNU_IFUNC;
                let defined = row.section != elf::SHN_UNDEF.0;
                if !defined || !(indirect || symbol_type == elf::STT_FUNC) {
                    return;
                }
                if let Some(known) = places.get(&(row.name, row.value)) {
                    let known = &mut found[*known];
                    known.size = known.size.max(row.size);
                    return;
                }
                places.insert((row.name, row.value), found.len());
                found.push(FunctionSymbol {
                    name: names[row.name].to_owned(),
                    address: row.value,
                    size: row.size,
                    indirect,
                    binding: binding(row.info),
                });
            })?;
        }
        Ok(found)
    }

    /// Which of these names the object imports (dynamic symbols that it uses
    /// but does not define).
    ///
    /// # Errors
    /// See [`ElfError`].
    pub fn find_imports<'n>(&self, names: &[&'n str]) -> Result<Vec<&'n str>, ElfError> {
        let mut found = vec![false; names.len()];
        self.rows(elf::SHT_DYNSYM, names, Deadline::start(), |row| {
            found[row.name] |= row.section == elf::SHN_UNDEF.0;
        })?;
        let imported = names.iter().zip(found).filter(|(_, found)| *found);
        Ok(imported.map(|(name, _)| *name).collect())
    }

    /// Calls `each` for every row of the tables of `kind` that has one of the
    /// names.
    pub(super) fn rows(
        &self,
        kind: elf::SectionType,
        names: &[&str],
        deadline: Deadline,
        mut each: impl FnMut(Row),
    ) -> Result<(), ElfError> {
        let mut matches = 0;
        // A file has one table of each kind at most; further ones are ignored.
        let Some(table) = self.sections.iter().find(|section| section.kind == kind.0) else {
            return Ok(());
        };
        let strings = usize::try_from(table.link)
            .ok()
            .and_then(|link| self.sections.get(link))
            .filter(|strings| strings.kind == elf::SHT_STRTAB.0)
            .ok_or(ElfError::Damaged("a symbol table has no string table"))?;
        limited("symbols", table.size / SYMBOL_SIZE, MAX_SYMBOLS)?;
        let places = self.find_strings(strings, names, deadline)?;
        if places.is_empty() {
            return Ok(());
        }
        let mut index = 0;
        let mut done = 0;
        let size = table.size - table.size % SYMBOL_SIZE;
        while done < size {
            deadline.check()?;
            let length = CHUNK.min(size - done);
            let offset = table.offset.checked_add(done);
            let offset = offset.ok_or(ElfError::Damaged("an offset overflows"))?;
            for entry in read(&self.file, offset, length)?.chunks_exact(SYMBOL_SIZE as usize) {
                if let Some(name) = places.get(&u32_at(entry, 0)) {
                    matches += 1;
                    if matches > MAX_FOUND {
                        return Err(ElfError::TooLarge {
                            what: "symbols of the same name",
                            count: matches as u64,
                            limit: MAX_FOUND as u64,
                        });
                    }
                    each(Row {
                        name: *name,
                        index,
                        info: entry[4],
                        section: u16_at(entry, 6),
                        value: u64_at(entry, 8),
                        size: u64_at(entry, 16),
                    });
                }
                index += 1;
            }
            done += length;
        }
        Ok(())
    }

    /// Where the names are in a string table: offset -> index of the name. A
    /// linker stores "free" within "xfree", so every suffix counts.
    fn find_strings(
        &self,
        strings: &Section,
        names: &[&str],
        deadline: Deadline,
    ) -> Result<HashMap<u32, usize>, ElfError> {
        limited("bytes of symbol names", strings.size, MAX_STRINGS)?;
        let mut by_last_byte: Vec<Vec<usize>> = vec![Vec::new(); 256];
        let mut longest = 0;
        for (index, name) in names.iter().enumerate() {
            if let Some(last) = name.as_bytes().last()
                && name.len() <= MAX_NAME
            {
                by_last_byte[usize::from(*last)].push(index);
                longest = longest.max(name.len());
            }
        }
        let mut places = HashMap::new();
        let mut window: Vec<u8> = Vec::new();
        let mut done = 0;
        while done < strings.size {
            deadline.check()?;
            let kept = window.len().min(longest);
            window.drain(..window.len() - kept);
            let length = CHUNK.min(strings.size - done);
            let offset = strings.offset.checked_add(done);
            let offset = offset.ok_or(ElfError::Damaged("an offset overflows"))?;
            window.extend(read(&self.file, offset, length)?);
            for end in kept..window.len() {
                if end == 0 || !matches!(window[end], 0 | b'@') {
                    continue;
                }
                for index in &by_last_byte[usize::from(window[end - 1])] {
                    let name = names[*index].as_bytes();
                    if window[..end].ends_with(name) {
                        // Within 1 GiB, as checked above.
                        let place = done + (end - kept) as u64 - name.len() as u64;
                        places.insert(place as u32, *index);
                    }
                }
            }
            if places.len() > MAX_PLACES {
                return Err(ElfError::TooLarge {
                    what: "strings that end in the same names",
                    count: places.len() as u64,
                    limit: MAX_PLACES as u64,
                });
            }
            done += length;
        }
        Ok(places)
    }
}

fn binding(info: u8) -> Binding {
    match elf::SymbolBind(info >> 4) {
        elf::STB_LOCAL => Binding::Local,
        elf::STB_GLOBAL => Binding::Global,
        elf::STB_WEAK => Binding::Weak,
        other => Binding::Other(other.0),
    }
}
