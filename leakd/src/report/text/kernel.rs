//! What is said only of the kernel.

use super::Page;
use crate::report::kernel::{KernelSite, KernelTrace, Task};
use crate::terminal::{Role, bytes, count, safe_within};

/// Tasks of each site that are named.
const TASKS: usize = 3;
/// Other names of a cache that are told.
const ALIASES: usize = 3;

/// What was traced, and what of it cannot be known.
pub fn push_trace(page: &mut Page, kernel: &KernelTrace) {
    let mut parts = vec![match &kernel.cache {
        Some(cache) => format!("Traced: cache {}", safe_within(cache, 64)),
        None => format!("Traced: {}", kernel.traced.join(", ")),
    }];
    if kernel.traced.iter().any(|kind| kind == "pages") {
        parts.push(format!(
            "without pages of user memory and page cache ({} allocations)",
            count(kernel.movable_pages)
        ));
    }
    if kernel.underneath_bytes > 0 {
        let held = bytes(kernel.underneath_bytes);
        parts.push(format!("pages underneath slabs and the like, counted there: {held}"));
    }
    page.parts(Role::Dim, "", &parts);
    let mut warn = |text: String| page.paragraph(Role::Warning, "", &format!("WARNING: {text}"));
    for unseen in &kernel.unseen_frees {
        warn(format!(
            "frees by {} are not seen: {}. Blocks that go this way count as held until their \
             address is handed out again.",
            safe_within(&unseen.function, 64),
            safe_within(&unseen.reason, 128)
        ));
    }
    if kernel.missed_frees > 0 {
        warn(format!(
            "up to {} frees were missed in interrupts: as many blocks may be gone.",
            count(kernel.missed_frees)
        ));
    }
    if kernel.stacks_mistaken > 0 {
        warn(format!(
            "{} of {} stacks that were checked had been taken for others: about that share of \
             all blocks is counted at a wrong call site.",
            count(kernel.stacks_mistaken),
            count(kernel.stacks_checked)
        ));
    }
}

/// What a call site allocated, and who called it.
pub fn push_site(page: &mut Page, site: &KernelSite) {
    let what = match (&site.cache, site.kind.as_str()) {
        (Some(cache), _) => format!("cache {}{}", safe_within(cache, 64), merged(site)),
        (None, "cache") => "a cache whose name is not known".to_owned(),
        (None, kind) => kind.to_owned(),
    };
    let size = match (site.least_bytes, site.most_bytes) {
        (least, most) if least == most => format!("blocks of {}", bytes(most)),
        (least, most) => format!("blocks of {} to {}", bytes(least), bytes(most)),
    };
    let mut parts = vec![what, size];
    match site.reclaimable {
        Some(true) => parts.push("reclaimable".to_owned()),
        Some(false) => parts.push("not reclaimable".to_owned()),
        None => {}
    }
    if site.interrupt {
        parts.push("in interrupts".to_owned());
    } else if !site.tasks.is_empty() {
        parts.extend(site.tasks.iter().take(TASKS).map(|one| format!("by {}", task(one))));
    }
    page.parts(Role::Dim, "    ", &parts);
    if site.reused > 0 {
        let text = format!(
            "upper bound: {} of its blocks were freed where no probe sees it, and others may be.",
            count(site.reused)
        );
        page.paragraph(Role::Warning, "    ", &text);
    }
}

/// Whom else a cache may belong to.
fn merged(site: &KernelSite) -> String {
    let names = site.merged_with.iter().take(ALIASES).map(|name| safe_within(name, 32));
    let names: Vec<_> = names.collect();
    match (names.len(), site.merged_with.len().saturating_sub(ALIASES)) {
        (0, _) => String::new(),
        (_, 0) => format!(" (also {})", names.join(", ")),
        (_, more) => format!(" (also {} and {more} more)", names.join(", ")),
    }
}

fn task(task: &Task) -> String {
    let name =
        task.comm.as_deref().map_or("a process that has gone".into(), |comm| safe_within(comm, 32));
    format!("{name} (pid {}, {})", task.pid, count(task.blocks))
}
