//! Frees that were wrong: before anything else, since they corrupt memory.

use super::{Page, stack};
use crate::report::bad_free::{BadFree, BadFreeKind, CallStack};
use crate::report::model::{Coverage, Target};
use crate::terminal::{Role, bytes, count, duration, safe_within};

/// Wrong frees that are shown.
const SHOWN: usize = 5;

/// Adds what is wrong with a target's frees, if it was looked for it.
pub fn push(page: &mut Page, target: &Target) {
    let Some(found) = &target.bad_frees else { return };
    let unchecked = target.coverage.unchecked_frees;
    if unchecked > 0 {
        let text = format!("WARNING: {} frees could not be looked at.", count(unchecked));
        page.paragraph(Role::Warning, "", &text);
    }
    if found.is_empty() {
        page.line(Role::Good, "Frees: no block was freed twice.");
        return;
    }
    for bad in found.iter().take(SHOWN) {
        page.blank();
        push_one(page, bad);
    }
    if found.len() > SHOWN {
        page.line(Role::Dim, &format!("... and at {} more places", found.len() - SHOWN));
    }
    if is_unsure(&target.coverage) {
        page.blank();
        page.paragraph(
            Role::Warning,
            "",
            "WARNING: not every allocation was seen: what looks freed twice may have been handed \
             out again in between.",
        );
    }
}

fn is_unsure(coverage: &Coverage) -> bool {
    coverage.lost_total() > 0 || !coverage.unprobed.is_empty()
}

fn push_one(page: &mut Page, bad: &BadFree) {
    let times = match bad.count {
        1 => String::new(),
        times => format!(", {} times", count(times)),
    };
    let address = safe_within(&bad.address, 32);
    let what = match (bad.kind, bad.size_bytes) {
        (BadFreeKind::DoubleFree, Some(size)) => {
            format!("FREED TWICE{times}: a block of {} at {address}", bytes(size))
        }
        (BadFreeKind::DoubleFree, None) => format!("FREED TWICE{times}: {address}"),
        (BadFreeKind::WrongFree, _) => {
            format!("WRONG FREE{times}: no block was handed out at {address}")
        }
    };
    page.paragraph(Role::Leak, "", &what);
    let by = format!("by thread {}:", bad.thread);
    match bad.kind {
        BadFreeKind::DoubleFree => {
            push_stack(page, &format!("freed again {by}"), &bad.freed_again_at)
        }
        BadFreeKind::WrongFree => push_stack(page, &format!("freed {by}"), &bad.freed_again_at),
    }
    if let Some(freed_at) = &bad.freed_at {
        let thread = bad.freed_thread.unwrap_or_default();
        let before = bad
            .freed_before_ns
            .map_or_else(String::new, |before| format!("{} before ", duration(before)));
        push_stack(page, &format!("freed {before}by thread {thread}:"), freed_at);
    }
    if let Some(allocated_at) = &bad.allocated_at {
        push_stack(page, "allocated:", allocated_at);
    }
}

fn push_stack(page: &mut Page, title: &str, calls: &CallStack) {
    page.line(Role::Dim, &format!("  {title}"));
    stack::push(page, &calls.stack, calls.stack_end);
}
