//! What a kernel with memory allocation profiling (6.10, CONFIG_MEM_ALLOC_PROFILING)
//! knows of its own call sites: /proc/allocinfo.

use std::fs::File;
use std::io::{self, Read};

const PATH: &str = "/proc/allocinfo";
/// A line has some 70 bytes; a distribution's kernel has some 5,000 of them.
const MOST_BYTES: u64 = 8 << 20;

/// A place in the kernel's source that allocates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The file, as the compiler knew it.
    pub file: String,
    /// The line in it.
    pub line: u32,
    /// The function.
    pub function: String,
    /// The module; `None`: the kernel itself.
    pub module: Option<String>,
    /// What is allocated there and not freed, in bytes.
    pub bytes: u64,
    /// Blocks, likewise.
    pub blocks: u64,
}

/// The `most` places with the most bytes; `None`: the kernel was built without,
/// or profiling is switched off (`sysctl vm.mem_profiling`).
///
/// # Errors
/// If the file is there and cannot be read.
pub fn read(most: usize) -> io::Result<Option<Vec<Row>>> {
    let file = match File::open(PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes)?;
    let mut rows = parse(&String::from_utf8_lossy(&bytes));
    rows.sort_by(|one, other| {
        let place = |row: &Row| (row.file.clone(), row.line);
        other.bytes.cmp(&one.bytes).then_with(|| place(one).cmp(&place(other)))
    });
    rows.truncate(most);
    // Switched off it counts nothing; a kernel that runs has allocated.
    Ok((!rows.is_empty()).then_some(rows))
}

/// Reads lines such as `4096 1 drivers/x.c:12 [x] func:probe`. Places that have
/// nothing are left out.
pub fn parse(text: &str) -> Vec<Row> {
    text.lines().filter_map(row).filter(|row| row.bytes > 0).collect()
}

fn row(line: &str) -> Option<Row> {
    let mut words = line.split_whitespace();
    // Counters are sums over CPUs, and can be below zero for a moment.
    let bytes: i64 = words.next()?.parse().ok()?;
    let blocks = words.next()?.parse().ok()?;
    let (file, number) = words.next()?.rsplit_once(':')?;
    let mut word = words.next()?;
    let module = word.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    if module.is_some() {
        word = words.next()?;
    }
    Some(Row {
        file: file.to_owned(),
        line: number.parse().ok()?,
        function: word.strip_prefix("func:")?.to_owned(),
        module: module.map(str::to_owned),
        bytes: u64::try_from(bytes).unwrap_or(0),
        blocks,
    })
}
