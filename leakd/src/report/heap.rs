//! The heap summary that `leakctl run` ends with, as valgrind's does.

use super::model::{Report, SeenFrom, Target};
use super::text::{self, Options, Page};
use crate::terminal::{Role, bytes, count, duration, safe_within};

/// Renders a heap summary for each target: what is in use at exit, how many
/// allocations and frees there were, and warnings where those are not exact.
pub fn heap_summary(report: &Report, options: &Options) -> String {
    let mut page = Page::new(options);
    for target in &report.targets {
        push(&mut page, target);
    }
    page.finish()
}

fn push(page: &mut Page, target: &Target) {
    let heap = &target.heap;
    let tilde = if target.outstanding.estimated { "~" } else { "" };
    // Of all its programs the calls were counted; of the last one, blocks summed up.
    let sums = if target.execs > 0 { tilde } else { "" };
    page.line(
        Role::Heading,
        &format!(
            "HEAP SUMMARY of {} (pid {}), {}",
            safe_within(&target.comm, 32),
            target.pid,
            duration(target.duration_ns)
        ),
    );
    let size = |number: u64| match number {
        0..1024 => format!("{tilde}{} bytes", count(number)),
        _ => format!("{tilde}{} bytes ({})", count(number), bytes(number)),
    };
    let role = if heap.in_use_blocks == 0 { Role::Good } else { Role::Leak };
    page.line(
        role,
        &format!(
            "    in use at exit: {} in {tilde}{} blocks",
            size(heap.in_use_bytes),
            count(heap.in_use_blocks)
        ),
    );
    page.paragraph(
        Role::Heading,
        "    ",
        &format!(
            "total: {sums}{} allocations, {sums}{} frees, {tilde}{} bytes allocated",
            count(heap.allocations),
            count(heap.frees),
            count(heap.allocated_bytes)
        ),
    );
    if target.coverage.seen_from == SeenFrom::Attach {
        page.line(Role::Dim, "    since the attach; what was allocated before is not counted");
    }
    if target.execs > 0 {
        page.paragraph(Role::Dim, "    ", &text::after_execs(target));
    }
    let all_seen = target.coverage.lost_total() == 0 && target.coverage.sampled_bytes == 0;
    if heap.in_use_blocks == 0 && heap.allocations > 0 && all_seen {
        page.line(Role::Good, "    All of these blocks were freed: there is no leak.");
    }
    text::push_warnings(page, target);
}
