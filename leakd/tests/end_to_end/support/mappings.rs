//! The executable file mappings of a process.

use std::path::PathBuf;

/// One executable mapping of a file.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Where in the file it begins.
    pub offset: u64,
    /// The file's name as the process has it.
    pub path: String,
    /// A link to the file itself, even if it was renamed or deleted.
    pub link: PathBuf,
}

/// The executable mappings of files of process `pid`; none if it is gone.
pub fn executable_mappings(pid: i32) -> Vec<Mapping> {
    let text = std::fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().filter_map(|line| parse(pid, line)).collect()
}

fn parse(pid: i32, line: &str) -> Option<Mapping> {
    let mut words = line.splitn(6, ' ');
    let (range, permissions, offset) = (words.next()?, words.next()?, words.next()?);
    let path = words.nth(2)?.trim_start();
    let (start, end) = range.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    (permissions.as_bytes().get(2) == Some(&b'x') && path.starts_with('/')).then_some(())?;
    Some(Mapping {
        start: number(start)?,
        end: number(end)?,
        offset: number(offset)?,
        path: path.to_owned(),
        link: PathBuf::from(format!("/proc/{pid}/map_files/{range}")),
    })
}
