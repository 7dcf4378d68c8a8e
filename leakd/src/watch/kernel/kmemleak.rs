//! What kmemleak has found: /sys/kernel/debug/kmemleak, in kernels that were
//! built with it (CONFIG_DEBUG_KMEMLEAK).
//!
//! kmemleak marks from time to time what the kernel can still reach. Reading its
//! file starts no scan, and says what the last one has found.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};

const PATH: &str = "/sys/kernel/debug/kmemleak";
/// An object has some 700 bytes of text.
const MOST_BYTES: u64 = 8 << 20;
/// Frames of a stack; the kernel keeps 16.
const MOST_FRAMES: usize = 32;

/// Blocks that nothing refers to, allocated by the same stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// The functions, the allocating one first, as `name+0x1b/0x20 [module]`.
    pub frames: Vec<String>,
    /// The blocks, in bytes.
    pub bytes: u64,
    /// How many.
    pub blocks: u64,
    /// The task that allocated the first of them, as it was called.
    pub comm: String,
    /// And its number.
    pub pid: u32,
}

/// What kmemleak has found, and whether that was all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// By stack, the most bytes first.
    pub rows: Vec<Row>,
    /// There was more than is read.
    pub is_cut: bool,
}

/// What kmemleak has found; `None`: the kernel was built without, or kmemleak
/// is off.
///
/// # Errors
/// If the file is there and cannot be read.
pub fn read(most: usize) -> io::Result<Option<Findings>> {
    let file = match File::open(PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut bytes = Vec::new();
    match file.take(MOST_BYTES).read_to_end(&mut bytes) {
        // So it says that it is off.
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => return Ok(None),
        other => other?,
    };
    let mut rows = parse(&String::from_utf8_lossy(&bytes));
    let is_cut = bytes.len() as u64 == MOST_BYTES || rows.len() > most;
    rows.truncate(most);
    Ok(Some(Findings { rows, is_cut }))
}

/// What of an object comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    /// Its task, or its memory's begin, which nobody is shown.
    Head,
    Backtrace,
}

/// Reads objects: a line at the margin, two lines about it, its begin in bytes,
/// its stack.
pub fn parse(text: &str) -> Vec<Row> {
    let mut found: HashMap<Vec<String>, Row> = HashMap::new();
    let mut object: Option<Row> = None;
    let mut within = Within::Head;
    let mut add = |object: Option<Row>| {
        let Some(one) = object else { return };
        let row =
            found.entry(one.frames.clone()).or_insert_with(|| Row { bytes: 0, ..one.clone() });
        row.bytes = row.bytes.saturating_add(one.bytes);
        row.blocks += 1;
    };
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("unreferenced object 0x") {
            add(object.take());
            within = Within::Head;
            object = size(rest).map(|bytes| Row { bytes, ..Row::default() });
            continue;
        }
        let Some(object) = &mut object else { continue };
        if line.starts_with("  backtrace") {
            within = Within::Backtrace;
        } else if within == Within::Backtrace {
            match line.strip_prefix("    ") {
                Some(frame) if object.frames.len() < MOST_FRAMES => {
                    object.frames.push(without_address(frame).to_owned());
                }
                Some(_) => {}
                None => within = Within::Head,
            }
        } else if let Some(task) = line.strip_prefix("  comm \"") {
            // The name may contain quotes, and the number does not.
            if let Some((comm, rest)) = task.rsplit_once("\", pid ") {
                object.comm = comm.to_owned();
                object.pid = rest.split(',').next().and_then(|pid| pid.parse().ok()).unwrap_or(0);
            }
        }
    }
    add(object);
    let mut rows: Vec<Row> = found.into_values().collect();
    rows.sort_by(|one, other| {
        other.bytes.cmp(&one.bytes).then_with(|| one.frames.cmp(&other.frames))
    });
    rows
}

/// The size in `ffff8881065aa0c0 (size 32):`.
fn size(text: &str) -> Option<u64> {
    text.split_once("(size ")?.1.strip_suffix("):")?.parse().ok()
}

/// A frame without the `[<ffffffff81234567>]` that older kernels put in front.
fn without_address(frame: &str) -> &str {
    match frame.strip_prefix("[<") {
        Some(rest) => rest.split_once(">]").map_or(frame, |(_, name)| name.trim_start()),
        None => frame,
    }
}
