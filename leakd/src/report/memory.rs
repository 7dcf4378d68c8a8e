//! Where a process' resident memory goes, as data; see [`crate::resident`].

use serde::{Deserialize, Serialize};

use crate::resident::Composition;

/// The parts of a process' resident memory at the end of the trace, in bytes.
/// `used_bytes` and all below it make up `resident_bytes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Resident memory (RSS).
    pub resident_bytes: u64,
    /// What is in swap besides.
    pub swapped_bytes: u64,
    /// Of `used_bytes`, what the call sites of this report hold; null if not all
    /// blocks were recorded.
    pub outstanding_bytes: Option<u64>,
    /// Of `used_bytes`, what is older than the trace, or in the caches of freed
    /// blocks that glibc's threads keep; null as above.
    pub unseen_bytes: Option<u64>,
    /// Blocks of the heap that are in use.
    pub used_bytes: u64,
    /// What the allocator keeps: free blocks, headers, rounding.
    pub allocator_bytes: u64,
    /// Memory of an allocator that leakd cannot read: in use and not seen, or free.
    pub unresolved_bytes: u64,
    /// Stacks.
    pub stacks_bytes: u64,
    /// Files that are mapped.
    pub files_bytes: u64,
    /// Memory that is shared with other processes.
    pub shared_bytes: u64,
    /// Variables of programs, and mappings that are not the heap's.
    pub other_bytes: u64,
}

impl Memory {
    /// `whole`: every block was recorded, and every free.
    pub fn new(found: &Composition, whole: bool) -> Self {
        Self {
            resident_bytes: found.resident,
            swapped_bytes: found.swapped,
            outstanding_bytes: whole.then_some(found.outstanding),
            unseen_bytes: whole.then_some(found.unseen),
            used_bytes: found.outstanding + found.unseen,
            allocator_bytes: found.allocator,
            unresolved_bytes: found.unresolved,
            stacks_bytes: found.stacks,
            files_bytes: found.files,
            shared_bytes: found.shared,
            other_bytes: found.other,
        }
    }
}
