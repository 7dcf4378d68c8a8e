//! A call site's stack: from the caller of the allocator outwards.

use leakd_common::event::StackEnd;
use leakd_common::kernel::{FLAG_INTERRUPT, KERNEL_FRAMES, KernelKind, KernelStackRecord};

use super::symbols::Symbols;
use super::{caches, hooks};
use crate::engine::plain::read;
use crate::symbol::Frame;

/// Where a call site is.
#[derive(Clone, Debug)]
pub struct SiteStack {
    /// Which allocator.
    pub kind: KernelKind,
    /// The cache's name; empty if it has none.
    pub cache: String,
    /// From the caller of the allocator outwards.
    pub frames: Vec<Frame>,
    /// Why it ends where it does.
    pub end: StackEnd,
    /// Whether an interrupt allocated.
    pub interrupt: bool,
    /// Pages that another allocator took, to hand out parts of them.
    pub underneath: Option<Underneath>,
}

/// Whose pages they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Underneath {
    /// Of slabs, or of a kmalloc that is too large for them.
    Slab,
    /// Of vmalloc.
    Vmalloc,
    /// Of the memory that each CPU has a copy of.
    PerCpu,
}

impl SiteStack {
    /// What was allocated, in a word or two: the cache, or the kind of memory.
    pub fn what(&self) -> String {
        match self.cache.as_str() {
            "" => hooks::name(self.kind).to_owned(),
            cache => format!("cache {cache}"),
        }
    }
}

/// Functions that hand pages out, or areas of addresses, and nothing else.
#[rustfmt::skip]
const ALLOCATORS: &[&str] = &[
    "alloc_pages", "__alloc_pages", "alloc_frozen_pages", "__alloc_frozen_pages", "alloc_page_",
    "__folio_alloc", "folio_alloc", "get_free_pages", "__get_free_pages", "get_zeroed_page",
    "alloc_vmap_area", "__get_vm_area_node", "get_vm_area", "__vmalloc_node", "__vmalloc",
    "vmalloc", "vzalloc", "pcpu_alloc", "__alloc_percpu",
];

/// How the frames begin that are leakd's own and the tracepoint's.
const TRACING: &[&str] =
    &["bpf_prog_", "bpf_trace_run", "__bpf_trace_", "__traceiter_", "bpf_get_stack"];

/// Frames at the inner end that may be the tracing's.
const MOST_TRACING: usize = 8;

/// How the outermost functions of kernel stacks are called.
#[rustfmt::skip]
const OUTERMOST: &[&str] = &[
    "entry_", "asm_", "ret_from_fork", "secondary_startup", "common_startup", "start_secondary",
    "x86_64_start", "handle_softirqs", "__do_softirq", "common_interrupt", "sysvec_", "exc_",
    "rewind_stack", "do_softirq",
];

/// Reads an announcement; `None` where it is none.
pub fn parse(bytes: &[u8], symbols: &Symbols) -> Option<(u64, SiteStack)> {
    if bytes.len() < size_of::<KernelStackRecord>() {
        return None;
    }
    let record: KernelStackRecord = read(bytes);
    let depth = (record.depth as usize).min(KERNEL_FRAMES);
    let interrupt = record.flags & FLAG_INTERRUPT != 0;
    let mut frames: Vec<Frame> =
        record.frames[..depth].iter().map(|address| symbols.frame(*address)).collect();
    frames.drain(..begin(&frames, record.call_site));
    let last = frames.last().and_then(|frame| frame.function.as_deref()).unwrap_or_default();
    let end = if depth == KERNEL_FRAMES {
        StackEnd::Depth
    } else if interrupt || OUTERMOST.iter().any(|start| last.starts_with(start)) {
        StackEnd::Bottom
    } else if symbols.is_empty() {
        // As the kernel's own unwinder left it: nothing speaks against it.
        StackEnd::Bottom
    } else {
        StackEnd::NoRow
    };
    let kind = KernelKind::from_number(record.kind)?;
    let stack = SiteStack {
        kind,
        cache: caches::text(&record.cache),
        underneath: (kind == KernelKind::Pages).then(|| underneath(&frames)).flatten(),
        frames,
        end,
        interrupt,
    };
    Some((record.site, stack))
}

/// The index of the allocator's caller.
fn begin(frames: &[Frame], call_site: u64) -> usize {
    let exact = frames.iter().position(|frame| frame.address == call_site);
    if let Some(index) = exact.filter(|_| call_site != 0) {
        return index;
    }
    let starts = |frame: &Frame, with: &[&str]| {
        let name = frame.function.as_deref().unwrap_or_default();
        with.iter().any(|start| name.starts_with(start))
    };
    let inner = &frames[..frames.len().min(MOST_TRACING)];
    let tracing = inner.iter().rposition(|frame| starts(frame, TRACING)).map_or(0, |last| last + 1);
    let rest = &frames[tracing..];
    // At least one frame stays.
    let allocator = rest.iter().take_while(|frame| starts(frame, ALLOCATORS)).count();
    (tracing + allocator).min(frames.len().saturating_sub(1))
}

/// Which allocator took pages, by its function among the innermost frames.
fn underneath(frames: &[Frame]) -> Option<Underneath> {
    const NEAR: usize = 6;
    frames.iter().take(NEAR).find_map(|frame| {
        let name = frame.function.as_deref()?;
        let base = name.split('.').next()?.trim_end_matches("_noprof");
        match base {
            "allocate_slab"
            | "new_slab"
            | "___slab_alloc"
            | "alloc_slab_page"
            | "__kmalloc_large_node"
            | "___kmalloc_large_node"
            | "kmalloc_large"
            | "kmalloc_large_node"
            | "__kmalloc_large" => Some(Underneath::Slab),
            "__vmalloc_node_range" | "__vmalloc_area_node" | "vm_area_alloc_pages" => {
                Some(Underneath::Vmalloc)
            }
            "pcpu_populate_chunk"
            | "pcpu_alloc_pages"
            | "pcpu_create_chunk"
            | "pcpu_balance_populated" => Some(Underneath::PerCpu),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(names: &[&str]) -> Vec<Frame> {
        names
            .iter()
            .zip(1..)
            .map(|(name, address)| Frame {
                function: Some((*name).to_owned()),
                address,
                ..Frame::default()
            })
            .collect()
    }

    /// Check that a stack begins at the allocator's caller: where the kernel
    /// says so, else behind the functions that only allocate.
    #[test]
    fn begins_at_the_caller() {
        let stack = frames(&["bpf_prog_1", "bpf_trace_run6", "__kmalloc_noprof", "open", "main"]);
        assert_eq!(begin(&stack, 4), 3);
        assert_eq!(begin(&stack, 99), 2, "the tracing's frames go in any case");
        let stack = frames(&["bpf_trace_run4", "__alloc_pages_noprof", "alloc_pages_mpol", "pipe"]);
        assert_eq!(begin(&stack, 0), 3);
        assert_eq!(begin(&frames(&["bpf_trace_run4"]), 0), 0, "one frame stays");
        assert_eq!(begin(&[], 0), 0);
    }

    /// Check that pages which other allocators take are known as such.
    #[test]
    fn pages_underneath() {
        assert_eq!(underneath(&frames(&["allocate_slab", "new_slab"])), Some(Underneath::Slab));
        assert_eq!(
            underneath(&frames(&["__vmalloc_node_range_noprof", "x"])),
            Some(Underneath::Vmalloc)
        );
        assert_eq!(underneath(&frames(&["pipe_write", "vfs_write"])), None);
    }
}
