//! What the report has only of the kernel's own memory.

use serde::{Deserialize, Serialize};

/// How the kernel was traced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelTrace {
    /// The kinds of memory that were traced: `kmalloc`, `cache`, `pages`,
    /// `percpu`, `vmalloc`.
    pub traced: Vec<String>,
    /// The cache that alone was traced, if one was asked for.
    pub cache: Option<String>,
    /// Ways to free memory that were not under probe.
    pub unseen_frees: Vec<UnseenFree>,
    /// Frees that were missed at most, since both programs at the tracepoint
    /// had been interrupted.
    pub missed_frees: u64,
    /// Allocations that were missed, since an interrupt made them while the
    /// program ran.
    pub missed_allocations: u64,
    /// Pages for user memory and the page cache, which were left out.
    pub movable_pages: u64,
    /// Bytes in pages that slabs, vmalloc and the like took from the page
    /// allocator: they are counted there, and not as pages.
    pub underneath_bytes: u64,
    /// Stacks that were known again from before and walked all the same, as one in
    /// 1,024 is.
    #[serde(default)]
    pub stacks_checked: u64,
    /// Those of them that turned out to be another stack.
    #[serde(default)]
    pub stacks_mistaken: u64,
}

/// A way to free memory that has no probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnseenFree {
    /// The function of the kernel.
    pub function: String,
    /// Why it is not under probe.
    pub reason: String,
}

/// What only call sites of the kernel have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelSite {
    /// Which allocator: `kmalloc`, `cache`, `pages`, `percpu`, `vmalloc`.
    pub kind: String,
    /// The slab cache, where it has a name of its own.
    pub cache: Option<String>,
    /// Other names of it: the kernel merges caches that are alike, and keeps the
    /// name of the first. Whose block it is, the call site tells.
    #[serde(default)]
    pub merged_with: Vec<String>,
    /// What the smallest of the outstanding blocks takes, in bytes.
    pub least_bytes: u64,
    /// What the largest of them takes.
    pub most_bytes: u64,
    /// Whether the kernel can take the blocks back when memory is short; null
    /// if that is not known.
    pub reclaimable: Option<bool>,
    /// Whether an interrupt allocated them: no task did.
    pub interrupt: bool,
    /// Blocks allocated here that were freed in a way that no probe saw: their
    /// address was handed out again. Where this is not 0, others of them may
    /// have been freed, too, and what is outstanding is an upper bound.
    pub reused: u64,
    /// The tasks that allocated most of what is outstanding, largest first.
    pub tasks: Vec<Task>,
}

/// A process that allocated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The process.
    pub pid: u32,
    /// Its name; null if it had gone before it could be asked.
    pub comm: Option<String>,
    /// Outstanding blocks that it allocated.
    pub blocks: u64,
}

impl KernelSite {
    /// Adds what was found of the same place under another key.
    pub(super) fn add(&mut self, other: Self) {
        // Without blocks there is neither a least nor a most.
        if self.most_bytes == 0 {
            self.least_bytes = other.least_bytes;
        } else if other.most_bytes != 0 {
            self.least_bytes = self.least_bytes.min(other.least_bytes);
        }
        self.most_bytes = self.most_bytes.max(other.most_bytes);
        self.reused = self.reused.saturating_add(other.reused);
        for task in other.tasks {
            match self.tasks.iter_mut().find(|one| one.pid == task.pid) {
                Some(one) => one.blocks = one.blocks.saturating_add(task.blocks),
                None => self.tasks.push(task),
            }
        }
        self.tasks.sort_by_key(|task| (std::cmp::Reverse(task.blocks), task.pid));
    }
}
