//! One call site in full.

use super::{Page, blocks, kernel, stack};
use crate::report::model::Site;
use crate::terminal::{Role, bytes, count, duration, percent, rate, rate_bytes, safe_within};

/// Adds a site: its numbers, then its stack.
pub fn push(page: &mut Page, number: usize, site: &Site, tilde: &str) {
    page.paragraph(
        Role::Leak,
        "",
        &format!(
            "#{number}  {}  {tilde}{} in {tilde}{}, growing by {tilde}{}",
            site.verdict.word.word().to_uppercase(),
            bytes(site.outstanding_bytes),
            blocks(site.outstanding_blocks),
            rate_bytes(site.growth_bytes_per_second)
        ),
    );
    verdict(page, site);
    let mut parts = vec![format!(
        "{} of {tilde}{} survive",
        percent(site.surviving_share),
        blocks(site.allocated_blocks)
    )];
    match (site.oldest_age_ns, site.median_age_ns) {
        (Some(oldest), Some(median)) if site.outstanding_blocks > 1 => {
            parts.push(format!("oldest {}, median {}", duration(oldest), duration(median)));
        }
        (Some(age), _) => parts.push(format!("age {}", duration(age))),
        (None, _) => parts.push("ages unknown".to_owned()),
    }
    parts.push(format!("{tilde}{} allocated", rate(site.allocations_per_second)));
    if let Some(lifetime) = freed_lifetime(site) {
        parts.push(lifetime);
    }
    parts.extend(never_freed(site));
    if let Some(young) = young(site) {
        parts.push(format!("{tilde}{} of them young", count(young)));
    }
    page.parts(Role::Dim, "    ", &parts);
    if let Some(site) = &site.kernel {
        kernel::push_site(page, site);
    }
    stack::push(page, &site.stack, site.stack_end);
}

/// Why it is held to be that.
fn verdict(page: &mut Page, site: &Site) {
    let judged = &site.verdict;
    let confidence = judged.confidence.map(|one| format!("{} confidence: ", one.word()));
    // A report of an older daemon has none.
    if !judged.evidence.is_empty() {
        let evidence = safe_within(&judged.evidence, 512);
        let text = format!("{}{evidence}", confidence.unwrap_or_default());
        page.paragraph(Role::Heading, "    ", &text);
    }
}

/// Which part of the blocks stays for good, where some were freed: else all do.
fn never_freed(site: &Site) -> Option<String> {
    let survival = site.survival.filter(|survival| survival.low > 0.0)?;
    (site.freed_blocks > 0).then(|| {
        format!(
            "{} to {} are never freed: none was after {}",
            percent(survival.low),
            percent(survival.high),
            duration(survival.settled_ns)
        )
    })
}

/// Blocks that count as outstanding and are younger than the minimum age, if
/// that is most of them.
fn young(site: &Site) -> Option<u64> {
    site.oldest_age_ns?;
    let young = site.outstanding_blocks.saturating_sub(site.aged_blocks);
    (young > site.outstanding_blocks / 2).then_some(young)
}

/// How long the freed blocks lived, by the bound that 99 of 100 stayed below.
fn freed_lifetime(site: &Site) -> Option<String> {
    let freed = site.lifetimes.iter().fold(0u64, |sum, bucket| sum.saturating_add(bucket.blocks));
    let mut seen = 0u64;
    for bucket in &site.lifetimes {
        seen = seen.saturating_add(bucket.blocks);
        if seen >= freed - freed / 100 {
            return Some(match bucket.below_ns {
                Some(bound) => format!("the freed ones lived less than {}", duration(bound)),
                None => "the freed ones lived for hours".to_owned(),
            });
        }
    }
    None
}
