//! Names for the kernel's addresses, with the module that each belongs to.
//!
//! /proc/kallsyms is the kernel's own word, so it is read as it is; a name in
//! it is whatever a module's author chose, and made safe by who prints it.

use std::collections::HashMap;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::ops::Range;

use crate::symbol::Frame;

const KALLSYMS: &str = "/proc/kallsyms";
const MODULES: &str = "/proc/modules";
/// What a frame of the kernel proper has as its module.
pub const KERNEL: &str = "vmlinux";

/// A function.
#[derive(Debug)]
struct Symbol {
    address: u64,
    name: Box<str>,
    /// An index into `modules`; 0: the kernel proper.
    module: u32,
}

/// The kernel's functions, by address.
#[derive(Debug, Default)]
pub struct Symbols {
    symbols: Vec<Symbol>,
    modules: Vec<Box<str>>,
    /// Where the kernel proper ends.
    text_end: u64,
    /// What was loaded when they were read.
    loaded: String,
}

impl Symbols {
    /// Reads them. Where the kernel hides its addresses, there are none.
    pub fn read() -> io::Result<Self> {
        let loaded = fs::read_to_string(MODULES).unwrap_or_default();
        let file = fs::File::open(KALLSYMS)?;
        Ok(Self { loaded, ..Self::parse(BufReader::with_capacity(1 << 18, file))? })
    }

    fn parse(mut text: impl BufRead) -> io::Result<Self> {
        let mut found = Self { modules: vec![KERNEL.into()], ..Self::default() };
        let mut numbers: HashMap<Box<str>, u32> = HashMap::new();
        let mut line = String::new();
        while text.read_line(&mut line)? > 0 {
            let mut words = line.split_ascii_whitespace();
            if let (Some(address), Some(kind), Some(name)) =
                (words.next(), words.next(), words.next())
                && let Ok(address @ 1..) = u64::from_str_radix(address, 16)
            {
                if name == "_etext" {
                    found.text_end = address;
                }
                if matches!(kind, "t" | "T" | "w" | "W") {
                    let module = match words.next() {
                        Some(module) => {
                            let module = module.trim_matches(['[', ']']);
                            *numbers.entry(module.into()).or_insert_with(|| {
                                found.modules.push(module.into());
                                found.modules.len() as u32 - 1
                            })
                        }
                        None => 0,
                    };
                    found.symbols.push(Symbol { address, name: name.into(), module });
                }
            }
            line.clear();
        }
        // Stable: of aliases, the first one in the file stays the first.
        found.symbols.sort_by_key(|symbol| symbol.address);
        Ok(found)
    }

    /// Whether the kernel tells no addresses (kptr_restrict).
    pub fn is_empty(&self) -> bool {
        self.symbols.is_empty()
    }

    /// Reads them again if modules came or went.
    pub fn refresh(&mut self) -> io::Result<()> {
        if fs::read_to_string(MODULES).unwrap_or_default() != self.loaded {
            *self = Self::read()?;
        }
        Ok(())
    }

    /// The code of a function.
    pub fn function(&self, name: &str) -> Option<Range<u64>> {
        let index = self.symbols.iter().position(|symbol| &*symbol.name == name)?;
        let begin = self.symbols[index].address;
        let end = self.symbols[index..].iter().find(|symbol| symbol.address > begin)?.address;
        Some(begin..end)
    }

    /// The address of a symbol.
    pub fn address(&self, name: &str) -> Option<u64> {
        self.symbols.iter().find(|symbol| &*symbol.name == name).map(|symbol| symbol.address)
    }

    /// Names a return address.
    pub fn frame(&self, address: u64) -> Frame {
        let unknown = Frame { address, ..Frame::default() };
        // The call is the instruction in front of it.
        let inside = address.wrapping_sub(1);
        let index = self.symbols.partition_point(|symbol| symbol.address <= inside);
        let Some(symbol) = index.checked_sub(1).and_then(|index| self.symbols.get(index)) else {
            return unknown;
        };
        if symbol.module == 0 && self.text_end != 0 && inside >= self.text_end {
            return unknown;
        }
        // Of several names for one address, the first.
        let first = self.symbols.partition_point(|one| one.address < symbol.address);
        Frame {
            function: Some(self.symbols[first].name.to_string()),
            module: self.modules.get(symbol.module as usize).map(|name| name.to_string()),
            offset: Some(address - symbol.address),
            ..unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "ffffffff81000000 T _stext\n\
                        ffffffff81000010 t helper\n\
                        ffffffff81000010 t alias_of_helper\n\
                        ffffffff81000100 D data\n\
                        ffffffff81000200 T _etext\n\
                        ffffffffa0000000 t driver_open\t[driver]\n\
                        ffffffffa0000080 t bpf_prog_1\t[bpf]\n\
                        rubbish\n";

    fn name(symbols: &Symbols, address: u64) -> Option<String> {
        let frame = symbols.frame(address);
        Some(format!("{} {}+{:#x}", frame.module?, frame.function?, frame.offset?))
    }

    /// Check names, modules and offsets, and that a return address belongs to
    /// the call in front of it.
    #[test]
    fn names() {
        let symbols = Symbols::parse(TEXT.as_bytes()).unwrap();
        let name = |address| name(&symbols, address);
        assert_eq!(name(0xffff_ffff_8100_0010).as_deref(), Some("vmlinux _stext+0x10"));
        assert_eq!(name(0xffff_ffff_8100_0011).as_deref(), Some("vmlinux helper+0x1"));
        assert_eq!(name(0xffff_ffff_a000_0080).as_deref(), Some("driver driver_open+0x80"));
        assert_eq!(name(0xffff_ffff_8100_0300), None, "behind the kernel, before modules");
        assert_eq!(name(0x40_0000), None);
        assert_eq!(symbols.function("helper"), Some(0xffff_ffff_8100_0010..0xffff_ffff_8100_0200));
    }

    /// Check that hidden addresses give no names.
    #[test]
    fn hidden() {
        let text = "0000000000000000 T _stext\n0000000000000000 t helper\n";
        assert!(Symbols::parse(text.as_bytes()).unwrap().is_empty());
    }

    /// Check that this kernel's own are found.
    #[test]
    fn running_kernel() {
        let symbols = Symbols::read().unwrap();
        let open = symbols.function("do_sys_openat2").expect("root sees the addresses");
        assert_eq!(symbols.frame(open.start + 5).function.as_deref(), Some("do_sys_openat2"));
    }
}
