//! What was seen and, loudly, what was not.

use super::Page;
use super::stack::{base_name, brief};
use crate::report::model::{Coverage, SeenFrom, Stopped, Target};
use crate::symbol::demangle;
use crate::terminal::{Role, bytes, count, duration, percent, safe_within};

/// Places and files that are named.
const NAMED: usize = 3;
/// Below this share of complete stacks the report warns.
const COMPLETE_ENOUGH: f64 = 0.95;

/// The coverage in one sentence, and warnings where numbers are not exact.
pub fn push(page: &mut Page, target: &Target) {
    let coverage = &target.coverage;
    let mut parts = vec![format!(
        "Seen: {} allocations, {} frees",
        count(coverage.allocations),
        count(coverage.frees)
    )];
    if target.execs > 0 {
        parts.push("all its programs together".to_owned());
    }
    parts.push(match coverage.lost_total() {
        0 => "none lost".to_owned(),
        lost => format!("{} LOST", count(lost)),
    });
    parts.push(match coverage.sampled_bytes {
        0 => "not sampled".to_owned(),
        interval => format!("sampled every ~{}", bytes(interval)),
    });
    match (coverage.seen_from, coverage.unknown_frees) {
        (SeenFrom::Attach, 0) => parts.push("memory from before the attach is unknown".to_owned()),
        (SeenFrom::Attach, frees) => parts.push(format!(
            "memory from before the attach is unknown ({} such frees)",
            count(frees)
        )),
        (SeenFrom::Start, 0) => parts.push("from the first instruction on".to_owned()),
        (SeenFrom::Start, frees) => {
            parts.push(format!("from the first instruction on, {} unknown frees", count(frees)))
        }
    }
    if coverage.stacks.walked > 0 {
        parts.push(format!("stacks {} complete", percent(complete_share(coverage))));
    }
    if coverage.failed > 0 {
        parts.push(format!("{} calls failed", count(coverage.failed)));
    }
    if coverage.table_bytes > 0 {
        parts.push(format!("tables {}", bytes(coverage.table_bytes)));
    }
    page.parts(Role::Dim, "", &parts);
    push_warnings(page, target);
}

fn complete_share(coverage: &Coverage) -> f64 {
    let stacks = coverage.stacks;
    if stacks.walked == 0 { 1.0 } else { stacks.complete as f64 / stacks.walked as f64 }
}

/// Where most of the incomplete stacks end.
fn where_stopped(coverage: &Coverage) -> String {
    let all = coverage.stacks.walked.max(1) as f64;
    let one = |stopped: &Stopped| {
        let module = stopped.module.as_deref().unwrap_or("unknown code");
        let share = percent(stopped.walked as f64 / all);
        format!("{share} in {} ({})", safe_within(base_name(module), 64), brief(stopped.end))
    };
    let places: Vec<String> = coverage.stopped.iter().take(NAMED).map(one).collect();
    match coverage.stopped.len() {
        0 => String::new(),
        count if count > NAMED => format!(" They end: {}, others elsewhere.", places.join(", ")),
        _ => format!(" They end: {}.", places.join(", ")),
    }
}

/// Warnings: whatever makes the numbers differ from the truth.
pub fn push_warnings(page: &mut Page, target: &Target) {
    let coverage = &target.coverage;
    let mut warn = |text: String| page.paragraph(Role::Warning, "", &format!("WARNING: {text}"));
    if coverage.lost_total() > 0 {
        let causes: Vec<String> = coverage
            .lost
            .iter()
            .map(|(cause, number)| {
                format!("{} {}", safe_within(&cause.replace('_', " "), 32), count(*number))
            })
            .collect();
        warn(format!(
            "{} allocations ({}) were lost and are missing here: {}.",
            count(coverage.lost_total()),
            bytes(coverage.lost_bytes),
            causes.join(", ")
        ));
    }
    if coverage.stacks.walked > 0 && complete_share(coverage) < COMPLETE_ENOUGH {
        warn(format!(
            "{} of the call stacks are incomplete: outer frames are missing.{}",
            percent(1.0 - complete_share(coverage)),
            where_stopped(coverage)
        ));
        for file in coverage.without_table.iter().take(NAMED) {
            warn(format!(
                "{} has no unwind table: {}.",
                safe_within(&file.module, 256),
                safe_within(&file.reason, 128)
            ));
        }
    }
    if coverage.windows.count > 1 {
        warn(format!(
            "probes were in for {} of {} only: what was freed in between was not seen, so of \
             what is held here, some may be gone.",
            duration(coverage.windows.open_ns),
            duration(target.duration_ns)
        ));
    }
    if let Some(first) = coverage.unprobed.first() {
        let others = coverage.unprobed.len() - 1;
        warn(format!(
            "{} in {}{} not traced: {}. What {} out is missing here.",
            safe_within(&demangle(&first.symbol), 64),
            safe_within(base_name(&first.module), 64),
            if others > 0 { format!(" and {others} like it are") } else { " is".to_owned() },
            safe_within(&first.reason, 256),
            if others > 0 { "they hand" } else { "it hands" },
        ));
    }
    if coverage.unattributed > 0 {
        warn(format!(
            "the table of call sites was full: {} allocations are counted under no site of \
             their own.",
            count(coverage.unattributed)
        ));
    }
    if coverage.double_frees > 0 {
        warn(format!(
            "{} blocks were freed by two threads at the same time: a fault of the program.",
            count(coverage.double_frees)
        ));
    }
    if coverage.sampled_bytes > 0 {
        warn(format!(
            "numbers marked ~ are estimates: {} allocations were left out by sampling.",
            count(coverage.sampled_out)
        ));
    }
}
