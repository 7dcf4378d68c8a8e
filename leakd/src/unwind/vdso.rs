//! The kernel's own shared library, which is in no file.
//!
//! All 64-bit processes of a machine share one; leakd's own is read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::unwind::convert::convert_bytes;
use crate::unwind::{ConvertError, Limits, Table};

/// It has two pages; later kernels may need some more.
const MAX_BYTES: u64 = 64 << 10;

/// The image of the vdso. NotFound where the kernel gave this process none
/// (`vdso=0` on its command line).
pub fn image() -> io::Result<Vec<u8>> {
    // SAFETY: reads a word that the kernel put on the stack at exec.
    let begin = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
    if begin == 0 {
        return Err(io::ErrorKind::NotFound.into());
    }
    // Its length is only known from the mapping.
    let end = mapping_end(&std::fs::read_to_string("/proc/self/maps")?, begin);
    let length = end.and_then(|end| end.checked_sub(begin)).filter(|&length| length <= MAX_BYTES);
    let length = length.ok_or_else(|| io::Error::other("no [vdso] in /proc/self/maps"))?;
    let mut bytes = vec![0; length as usize];
    // Not through a pointer: the mapping is not ours to make promises about.
    File::open("/proc/self/mem")?.read_exact_at(&mut bytes, begin)?;
    Ok(bytes)
}

/// The end of the mapping that begins at `begin`, from the text of
/// /proc/PID/maps.
fn mapping_end(maps: &str, begin: u64) -> Option<u64> {
    maps.lines().find_map(|line| {
        let (from, rest) = line.split_once('-')?;
        let (to, _) = rest.split_once(' ')?;
        (u64::from_str_radix(from, 16).ok()? == begin).then(|| u64::from_str_radix(to, 16).ok())?
    })
}

/// The vdso's table.
pub fn table() -> Result<Table, ConvertError> {
    convert_bytes(&*image()?, Limits::default())
}

#[cfg(test)]
mod tests {
    use leakd_common::unwind::Rule;
    use object::{Object, ObjectSymbol};

    use super::*;
    use crate::unwind::image::bias;

    /// Check that each function of the vdso begins with a rule that can be
    /// followed.
    #[test]
    fn functions() {
        let image = image().unwrap();
        let table = table().unwrap();
        let object = object::File::parse(&*image).unwrap();
        let mut functions = 0;
        for symbol in object.dynamic_symbols() {
            if symbol.kind() == object::SymbolKind::Text && symbol.size() > 0 {
                let rule = table.find(symbol.address()).unwrap();
                assert!(![Rule::NONE, Rule::UNSUPPORTED].contains(&rule), "{:?}", symbol.name());
                functions += 1;
            }
        }
        assert!(functions >= 4, "{functions}");
        assert_eq!(bias(&table.segments, 0x7fff_0000_0000, 0), Some(0x7fff_0000_0000));
    }
}
