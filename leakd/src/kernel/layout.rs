//! A module's file, laid out as the kernel does it when it loads a module.
//!
//! The file is relocatable: all of its sections begin at the address 0, so that
//! an address says nothing, and its debug info is full of holes that only
//! relocation fills. Here each section gets addresses of its own, and the debug
//! info what it lacks, in a copy; who reads that takes it for a library.

use object::elf;

const HEADER: usize = 64;
const SECTION: usize = 64;
const SYMBOL: usize = 24;
const RELOCATION: usize = 24;
/// Sections of a module: some hundred.
const MOST_SECTIONS: usize = 64 << 10;

/// Where things are in a section's header.
const KIND: usize = 4;
const FLAGS: usize = 8;
const ADDRESS: usize = 16;
const OFFSET: usize = 24;
const SIZE: usize = 32;
const LINK: usize = 40;
const INFO: usize = 44;
const ALIGNMENT: usize = 48;

/// Lays out a relocatable file. `None`: it is none, or is damaged; the bytes are
/// then of no use.
pub fn lay_out(bytes: &mut [u8]) -> Option<()> {
    let little_64 = bytes.get(..6)? == b"\x7fELF\x02\x01";
    if !little_64 || u16_at(bytes, 16)? != elf::ET_REL.0 {
        return None;
    }
    let table = usize::try_from(u64_at(bytes, 40)?).ok()?;
    let count = usize::from(u16_at(bytes, 60)?);
    if usize::from(u16_at(bytes, 58)?) != SECTION || count > MOST_SECTIONS {
        return None;
    }
    if !(HEADER..bytes.len()).contains(&table) {
        return None;
    }
    let header = |index: usize| table.checked_add(index.checked_mul(SECTION)?);
    let mut bases = vec![None; count];
    let mut next = 0x1000u64;
    for (index, base) in bases.iter_mut().enumerate() {
        let at = header(index)?;
        if u64_at(bytes, at + FLAGS)? & elf::SHF_ALLOC.0 != 0 {
            let alignment = u64_at(bytes, at + ALIGNMENT)?.max(1);
            let address = next.checked_next_multiple_of(alignment)?;
            // One byte stays free, so that no section's end is another's begin.
            next = address.checked_add(u64_at(bytes, at + SIZE)?)?.checked_add(1)?;
            put(bytes, at + ADDRESS, &address.to_le_bytes())?;
            *base = Some(address);
        }
    }
    for index in 0..count {
        let at = header(index)?;
        if u32_at(bytes, at + KIND)? == elf::SHT_SYMTAB.0 {
            move_symbols(bytes, at, &bases)?;
        }
    }
    for index in 0..count {
        let at = header(index)?;
        if u32_at(bytes, at + KIND)? != elf::SHT_RELA.0 {
            continue;
        }
        let target = u32_at(bytes, at + INFO)? as usize;
        // Of the code and its data, nobody wants the content.
        if bases.get(target)?.is_none() {
            relocate(bytes, at, header(target)?, header(u32_at(bytes, at + LINK)? as usize)?)?;
        }
        put(bytes, at + KIND, &elf::SHT_NULL.0.to_le_bytes())?;
    }
    put(bytes, 16, &elf::ET_DYN.0.to_le_bytes())
}

/// Begin and size of a section's content.
fn content(bytes: &[u8], header: usize) -> Option<(usize, usize)> {
    let begin = usize::try_from(u64_at(bytes, header + OFFSET)?).ok()?;
    let size = usize::try_from(u64_at(bytes, header + SIZE)?).ok()?;
    bytes.get(begin..begin.checked_add(size)?)?;
    Some((begin, size))
}

/// Moves symbols with their sections.
fn move_symbols(bytes: &mut [u8], header: usize, bases: &[Option<u64>]) -> Option<()> {
    let (begin, size) = content(bytes, header)?;
    for at in (begin..begin + size / SYMBOL * SYMBOL).step_by(SYMBOL) {
        // Beyond the sections, it is a number of another meaning.
        let section = usize::from(u16_at(bytes, at + 6)?);
        if let Some(Some(base)) = bases.get(section) {
            let value = u64_at(bytes, at + 8)?.checked_add(*base)?;
            put(bytes, at + 8, &value.to_le_bytes())?;
        }
    }
    Some(())
}

/// Fills the holes of a section.
fn relocate(bytes: &mut [u8], header: usize, target: usize, symbols: usize) -> Option<()> {
    let (begin, size) = content(bytes, header)?;
    let (target, target_size) = content(bytes, target)?;
    let (symbols, symbols_size) = content(bytes, symbols)?;
    for at in (begin..begin + size / RELOCATION * RELOCATION).step_by(RELOCATION) {
        let place = usize::try_from(u64_at(bytes, at)?).ok()?;
        let info = u64_at(bytes, at + 8)?;
        let addend = u64_at(bytes, at + 16)?;
        let symbol = (info >> 32) as usize * SYMBOL;
        if symbol.checked_add(SYMBOL)? > symbols_size {
            return None;
        }
        let value = u64_at(bytes, symbols + symbol + 8)?.wrapping_add(addend).to_le_bytes();
        let width = match (u16_at(bytes, 18)?, info as u32) {
            (machine, 1) if machine == elf::EM_X86_64.0 => 8, // R_X86_64_64
            (machine, 10 | 11) if machine == elf::EM_X86_64.0 => 4, // R_X86_64_32, _32S
            (machine, 257) if machine == elf::EM_AARCH64.0 => 8, // R_AARCH64_ABS64
            (machine, 258) if machine == elf::EM_AARCH64.0 => 4, // R_AARCH64_ABS32
            (_, 0) => continue,
            _ => return None,
        };
        if place.checked_add(width)? > target_size {
            return None;
        }
        put(bytes, target + place, &value[..width])?;
    }
    Some(())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) -> Option<()> {
    bytes.get_mut(at..at.checked_add(value.len())?)?.copy_from_slice(value);
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A relocatable file of C's.
    fn compiled() -> Vec<u8> {
        let directory = tempfile::tempdir().expect("a directory");
        let source = directory.path().join("a.c");
        std::fs::write(&source, "int first(int x) { return x + 1; }").expect("our own file");
        let object = directory.path().join("a.o");
        let mut cc = std::process::Command::new("cc");
        cc.args(["-g", "-c", "-o"]).args([&object, &source]);
        assert!(cc.status().expect("a C compiler").success());
        std::fs::read(object).expect("our own file")
    }

    proptest! {
        /// Check that nothing panics on files that are rotten here and there, or
        /// cut.
        #[test]
        fn rotten(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            cut in any::<prop::sample::Index>(),
            whole in any::<bool>(),
        ) {
            static FILE: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(compiled);
            let mut bytes = FILE.clone();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if !whole {
                bytes.truncate(cut.index(bytes.len()));
            }
            let _ = lay_out(&mut bytes);
        }
    }

    /// Check that a file is laid out once, and nothing else is.
    #[test]
    fn only_relocatable() {
        let mut bytes = compiled();
        assert_eq!(lay_out(&mut bytes), Some(()));
        assert_eq!(lay_out(&mut bytes), None);
        assert_eq!(lay_out(&mut b"no ELF".to_vec()), None);
    }
}
