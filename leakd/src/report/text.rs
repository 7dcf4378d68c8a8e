//! The report for people: text that fits the terminal.
//!
//! The first screen answers who leaks, how much and how fast; what was not
//! seen is said before what was; numbers that were estimated from samples
//! bear a `~`.

mod bad_free;
mod coverage;
mod kernel;
mod memory;
mod name;
mod scan;
mod site;
mod stack;
mod table;
mod wrap;

pub(super) use coverage::push_warnings;
pub(crate) use name::{culprit, is_library, shorten};
pub use scan::render_scan;
pub(crate) use stack::{base_name, brief};
pub(super) use wrap::Page;

use super::model::{Ended, Report, Site, Target};
use crate::terminal::{self, Role, Style, bytes, count, duration, safe, safe_within};
use crate::verdict::exhaustion::OutOfMemory;

/// How the text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// With colours or without.
    pub style: Style,
    /// Columns of the terminal.
    pub width: usize,
    /// Show every frame of every stack, however deep.
    pub all_frames: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { style: Style::PLAIN, width: terminal::DEFAULT_WIDTH, all_frames: false }
    }
}

/// Renders the report. The result ends with a newline and has no control
/// characters but newlines and, with colours, those of [`Style`].
pub fn render(report: &Report, options: &Options) -> String {
    let mut page = Page::new(options);
    if report.targets.is_empty() {
        page.line(Role::Warning, "No process was traced.");
    }
    for (index, target) in report.targets.iter().enumerate() {
        if index > 0 {
            page.blank();
        }
        render_target(&mut page, target);
    }
    page.finish()
}

fn render_target(page: &mut Page, target: &Target) {
    let tilde = estimate_mark(target);
    let ranked: Vec<&Site> = target.sites.iter().filter(|site| is_ranked(site)).collect();
    headline(page, target, &ranked);
    coverage::push(page, target);
    bad_free::push(page, target);
    if let Some(trace) = &target.kernel {
        kernel::push_trace(page, trace);
    }
    if ranked.len() > 1 {
        table::push(page, &ranked, tilde);
    }
    if let Some(memory) = &target.memory {
        memory::push(page, memory, target.coverage.seen_from);
    }
    for (index, site) in ranked.iter().enumerate() {
        page.blank();
        site::push(page, index + 1, site, tilde);
    }
    push_rest(page, target);
}

/// Whether a site is worth a place of its own: one of its blocks has reached
/// the minimum age, or that could not be told.
fn is_ranked(site: &Site) -> bool {
    site.aged_blocks > 0 || site.oldest_age_ns.is_none()
}

fn estimate_mark(target: &Target) -> &'static str {
    if target.outstanding.estimated { "~" } else { "" }
}

fn who(target: &Target) -> String {
    if target.kernel.is_some() {
        return "the kernel".to_owned();
    }
    format!("{} (pid {})", safe_within(&target.comm, 64), target.pid)
}

fn headline(page: &mut Page, target: &Target, ranked: &[&Site]) {
    let tilde = estimate_mark(target);
    let who = who(target);
    if !ranked.is_empty() {
        let total = ranked.len() as u64 + target.omitted.sites;
        let mut text = match (total, target.omitted.sites) {
            (1, _) => format!("{who}: 1 call site holds"),
            (_, 0) => format!("{who}: {} call sites hold", count(total)),
            (_, _) => format!("{who}: {} call sites, the first {} of which hold", count(total), {
                count(ranked.len() as u64)
            }),
        };
        let sum = |get: fn(&Site) -> u64| {
            ranked.iter().fold(0u64, |sum, site| sum.saturating_add(get(site)))
        };
        text.push_str(&format!(
            " {tilde}{} in {tilde}{} that were not freed",
            bytes(sum(|site| site.outstanding_bytes)),
            blocks(sum(|site| site.outstanding_blocks))
        ));
        let ages_known = ranked.iter().all(|site| site.oldest_age_ns.is_some());
        if ages_known && target.min_age_ns > 0 {
            text.push_str(&format!(
                "; {tilde}{} of it is {} old or older",
                bytes(sum(|site| site.aged_bytes)),
                duration(target.min_age_ns)
            ));
        }
        page.paragraph(Role::Leak, "", &format!("{text}."));
        verdict(page, target);
    } else if target.outstanding.blocks > 0 {
        let held = format!(
            "{tilde}{} in {tilde}{}",
            bytes(target.outstanding.bytes),
            blocks(target.outstanding.blocks)
        );
        page.paragraph(
            Role::Good,
            "",
            &format!(
                "{who}: no block outlived {}. {held} are younger and may be in flight.",
                duration(target.min_age_ns)
            ),
        );
    } else if target.heap.allocations == 0 {
        let text = match target.execs {
            0 => "no allocation was seen",
            // Of samples, that is not to say that there was none.
            _ => "no allocation of its last program is on record",
        };
        page.paragraph(Role::Warning, "", &format!("{who}: {text}."));
    } else {
        let of_last = if target.execs > 0 { " of its last program" } else { "" };
        let text = format!("nothing is outstanding. Every block{of_last} that was seen was freed.");
        page.paragraph(Role::Good, "", &format!("{who}: {text}"));
    }
    if let Some(out) = &target.out_of_memory {
        let text = out_of_memory(out);
        page.paragraph(Role::Warning, "", &format!("If it goes on like that: {text}."));
    }
    let ended = match target.ended {
        Ended::Running | Ended::Exec => "it is still running",
        Ended::Exited => "it has exited",
    };
    let exe = safe_within(&target.exe, 256);
    if target.kernel.is_some() {
        page.paragraph(Role::Dim, "", &format!("Linux {exe}, {}.", watched(target)));
        return;
    }
    page.paragraph(Role::Dim, "", &format!("{exe}, {}; {ended}.", watched(target)));
    if target.execs > 0 {
        page.paragraph(Role::Dim, "", &after_execs(target));
    }
}

/// What an exec means for the figures.
pub(super) fn after_execs(target: &Target) -> String {
    let times = match target.execs {
        1 => "once".to_owned(),
        execs => format!("{} times", count(execs.into())),
    };
    format!(
        "It replaced its program {times} (exec): what is held is of the last one; what an \
         earlier one held is gone."
    )
}

/// What is held of the process, and why.
fn verdict(page: &mut Page, target: &Target) {
    let judged = &target.verdict;
    // A report of an older daemon has none.
    if judged.evidence.is_empty() {
        return;
    }
    let role = match judged.word.urgency() {
        0 => Role::Dim,
        _ => Role::Leak,
    };
    let evidence = safe_within(&judged.evidence, 512);
    let word = judged.word.word().to_uppercase();
    page.paragraph(role, "", &format!("Verdict: {word}: {evidence}."));
}

/// When a limit will be reached, in words.
pub(crate) fn out_of_memory(out: &OutOfMemory) -> String {
    format!(
        "{}: {} of {} are left of {}",
        when_out_of_memory(out),
        bytes(out.left_bytes),
        bytes(out.limit_bytes),
        safe(&out.group)
    )
}

/// The same without what is left.
pub(crate) fn when_out_of_memory(out: &OutOfMemory) -> String {
    let span = |milliseconds: u64| duration(milliseconds.saturating_mul(1_000_000));
    let soonest = span(out.soonest_ms);
    match out.latest_ms.map(span) {
        None => format!("out of memory in {soonest} or later"),
        Some(latest) if latest == soonest => format!("out of memory in {soonest}"),
        Some(latest) => format!("out of memory in {soonest} to {latest}"),
    }
}

fn watched(target: &Target) -> String {
    let windows = target.coverage.windows;
    if windows.count > 1 {
        format!(
            "watched for {} of {} in {} windows",
            duration(windows.open_ns),
            duration(target.duration_ns),
            count(windows.count)
        )
    } else {
        format!("watched for {}", duration(target.duration_ns))
    }
}

fn blocks(number: u64) -> String {
    format!("{} block{}", count(number), if number == 1 { "" } else { "s" })
}

/// What is outstanding and not listed.
fn push_rest(page: &mut Page, target: &Target) {
    let tilde = estimate_mark(target);
    let (mut sites, mut held) = (0u64, 0u64);
    for site in target.sites.iter().filter(|site| !is_ranked(site)) {
        sites += 1;
        held = held.saturating_add(site.outstanding_bytes);
    }
    let plural = |number: u64| if number == 1 { "site holds" } else { "sites hold" };
    if sites > 0 && (sites as usize) < target.sites.len() {
        page.blank();
        page.paragraph(
            Role::Dim,
            "",
            &format!(
                "{} more call {} {tilde}{}, all of it younger than {}.",
                count(sites),
                plural(sites),
                bytes(held),
                duration(target.min_age_ns)
            ),
        );
    }
    if target.omitted.sites > 0 {
        page.blank();
        page.paragraph(
            Role::Dim,
            "",
            &format!(
                "{} more call {} {tilde}{} in {tilde}{}: --top shows more of them.",
                count(target.omitted.sites),
                plural(target.omitted.sites),
                bytes(target.omitted.bytes),
                blocks(target.omitted.blocks)
            ),
        );
    }
}

#[cfg(test)]
mod tests;
