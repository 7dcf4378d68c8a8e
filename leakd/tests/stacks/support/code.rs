//! Code addresses that can be compared between two runs of a program.

use std::collections::BTreeMap;

/// What a process has mapped.
#[derive(Debug, Default)]
pub struct Mappings(BTreeMap<u64, (u64, u64, String)>);

impl Mappings {
    /// Of a process that still runs.
    pub fn of(pid: u32) -> Self {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"));
        Self::parse(maps.expect("the process still runs").lines())
    }

    /// From lines of /proc/PID/maps.
    pub fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Self {
        let mapping = |line: &str| {
            let mut words = line.split_ascii_whitespace();
            let (begin, end) = words.next()?.split_once('-')?;
            let number = |word| u64::from_str_radix(word, 16).ok();
            let offset = number(words.nth(1)?)?;
            let path = words.nth(2).unwrap_or("").to_owned();
            Some((number(begin)?, (number(end)?, offset, path)))
        };
        let known = |line: &str| mapping(line).unwrap_or_else(|| panic!("not understood: {line}"));
        Self(lines.map(known).collect())
    }

    /// File and offset in it.
    pub fn place(&self, address: u64) -> String {
        match self.0.range(..=address).next_back() {
            Some((begin, (end, offset, path))) if address < *end && path.starts_with('/') => {
                format!("{path}+{:#x}", address - begin + offset)
            }
            _ => format!("{address:#x}"),
        }
    }

    /// A whole stack.
    pub fn places(&self, stack: &[u64]) -> Vec<String> {
        stack.iter().map(|address| self.place(*address)).collect()
    }
}
