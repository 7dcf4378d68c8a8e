//! Are there breakpoints in a process? Its code is compared with its files.

use super::{PATIENCE, PAUSE, links::links_on, mappings::executable_mappings};
use std::{fs::File, os::unix::fs::FileExt};

/// A byte of code that is not as in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The mapped file.
    pub path: String,
    /// Where in the file.
    pub offset: u64,
    /// What the file says.
    pub in_file: u8,
    /// What the process has.
    pub in_memory: u8,
}

/// Reads until the end of the file or of the buffer.
fn read_at(file: &File, length: u64, offset: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).expect("a mapping fits memory")];
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], offset + done as u64)? {
            0 => break,
            count => done += count,
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

/// All changed bytes in the code of process `pid`. A uprobe is an `int3`
/// (0xCC) in the process's own copy of the page, so each shows here. Panics
/// if the process has no code to look at: a process that is gone proves
/// nothing.
pub fn changed_code(pid: i32) -> Vec<Change> {
    changed_code_of(pid, "")
}

/// Those in the code of files whose path has this end.
pub fn changed_code_of(pid: i32, end_of_path: &str) -> Vec<Change> {
    let mut mappings = executable_mappings(pid);
    mappings.retain(|mapping| mapping.path.ends_with(end_of_path));
    assert!(!mappings.is_empty(), "process {pid} has no code to look at: has it ended?");
    let memory = File::open(format!("/proc/{pid}/mem")).expect("cannot open the process's memory");
    let mut changes = Vec::new();
    for mapping in mappings {
        // A mapping may go while we look: then it holds no probe.
        let Ok(file) = File::open(&mapping.link) else { continue };
        let length = mapping.end - mapping.start;
        let Ok(expected) = read_at(&file, length, mapping.offset) else { continue };
        let Ok(found) = read_at(&memory, expected.len() as u64, mapping.start) else { continue };
        for (index, (in_file, in_memory)) in expected.iter().zip(&found).enumerate() {
            if in_file != in_memory {
                changes.push(Change {
                    path: mapping.path.clone(),
                    offset: mapping.offset + index as u64,
                    in_file: *in_file,
                    in_memory: *in_memory,
                });
            }
        }
    }
    changes
}

/// Whether any code of the process is changed.
pub fn probes_present(pid: i32) -> bool {
    !changed_code(pid).is_empty()
}

/// Checks that nothing was left in the process, nor on it in the kernel.
pub fn assert_nothing_left(pid: i32) {
    // In this order: see `links::LOOKING`.
    assert_eq!(links_on(pid), 0, "BPF links were left on process {pid}");
    assert_eq!(changed_code(pid), [], "probes were left in process {pid}");
}

/// Waits until nothing is left in the process: the kernel takes away the
/// probes of a killed process in its own time.
pub fn wait_until_nothing_left(pid: i32) {
    let began = std::time::Instant::now();
    while began.elapsed() < PATIENCE {
        if links_on(pid) == 0 && !probes_present(pid) {
            return;
        }
        std::thread::sleep(PAUSE);
    }
    // It tells what is left.
    assert_nothing_left(pid);
}
