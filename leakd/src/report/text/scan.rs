//! A scan for people.

use super::{Options, Page, blocks, stack};
use crate::report::model::SeenFrom;
use crate::report::scan::{Amount, Method, ScanReport, ScanSite};
use crate::terminal::{Role, bytes, count, duration, safe_within};

/// Renders it; as [`super::render`] does.
pub fn render_scan(report: &ScanReport, options: &Options) -> String {
    let mut page = Page::new(options);
    let tilde = if report.estimated { "~" } else { "" };
    headline(&mut page, report, tilde);
    push_method(&mut page, report);
    push_classes(&mut page, report, tilde);
    push_limits(&mut page, report);
    let shown =
        |site: &&ScanSite| site.classes.lost().blocks > 0 || site.classes.possibly_lost.blocks > 0;
    for (index, site) in report.sites.iter().filter(shown).enumerate() {
        page.blank();
        push_site(&mut page, index + 1, site, tilde);
    }
    if report.omitted.sites > 0 {
        page.blank();
        page.paragraph(
            Role::Dim,
            "",
            &format!(
                "{} more call sites with {tilde}{} in {tilde}{}: --top shows more of them.",
                count(report.omitted.sites),
                bytes(report.omitted.bytes),
                blocks(report.omitted.blocks)
            ),
        );
    }
    page.finish()
}

fn amount(amount: Amount, tilde: &str) -> String {
    format!("{tilde}{} in {tilde}{}", bytes(amount.bytes), blocks(amount.blocks))
}

fn headline(page: &mut Page, report: &ScanReport, tilde: &str) {
    let who = format!("{} (pid {})", safe_within(&report.comm, 64), report.pid);
    let lost = report.total.lost();
    if lost.blocks > 0 {
        let text = format!(
            "{who}: {} are lost: nothing in the process leads to them any more.",
            amount(lost, tilde)
        );
        page.paragraph(Role::Leak, "", &text);
    } else if report.total.possibly_lost.blocks > 0 {
        let text = format!(
            "{who}: {} may be lost; of nothing it is certain.",
            amount(report.total.possibly_lost, tilde)
        );
        page.paragraph(Role::Warning, "", &text);
    } else if report.total.still_reachable.blocks > 0 {
        let text = format!("{who}: nothing is lost: every block that was recorded can be reached.");
        page.paragraph(Role::Good, "", &text);
    } else {
        let text = format!("{who}: no block was recorded that is outstanding still.");
        page.paragraph(Role::Warning, "", &text);
    }
}

fn push_method(page: &mut Page, report: &ScanReport) {
    let Method { rounds, whole_rounds, bytes: memory, took_ns, .. } = report.method;
    let times = |number: u32| match number {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        _ => format!("{number} times"),
    };
    let looked = match (report.method.stopped_ns, report.method.exact) {
        (Some(stopped), _) => format!("stopped for {} and looked at once", duration(stopped)),
        (None, _) if rounds == whole_rounds => {
            format!("looked at {} while it ran", times(rounds))
        }
        (None, _) => format!(
            "looked at {} while it ran, {} of these as a whole",
            times(rounds),
            times(whole_rounds)
        ),
    };
    let text = format!(
        "{}, recorded for {}; {} of memory {looked}, in {}.",
        safe_within(&report.exe, 256),
        duration(report.traced_ns),
        bytes(memory),
        duration(took_ns)
    );
    page.paragraph(Role::Dim, "", &text);
}

fn push_classes(page: &mut Page, report: &ScanReport, tilde: &str) {
    page.blank();
    let total = &report.total;
    for (name, class) in [
        ("definitely lost", total.definitely_lost),
        ("indirectly lost", total.indirectly_lost),
        ("possibly lost", total.possibly_lost),
        ("still reachable", total.still_reachable),
    ] {
        let lost = name.ends_with("lost") && class.blocks > 0;
        let role = if lost { Role::Leak } else { Role::Dim };
        let held = format!("{tilde}{}", bytes(class.bytes));
        page.line(role, &format!("{name:>19}  {held:>10}  {tilde}{}", blocks(class.blocks)));
    }
    if total.held_by_unknown.blocks > 0 {
        page.paragraph(
            Role::Dim,
            "",
            &format!(
                "{} of the possibly lost is held by heap memory only that is older than the \
                 trace, or free.",
                amount(total.held_by_unknown, tilde)
            ),
        );
    }
}

/// What was not seen.
fn push_limits(page: &mut Page, report: &ScanReport) {
    let mut say = |text: String| page.paragraph(Role::Warning, "! ", &text);
    if report.lost > 0 {
        say(format!("{} allocations were lost and are not judged.", count(report.lost)));
    }
    if report.method.unreadable_bytes > 0 {
        say(format!(
            "{} of its memory could not be read: what is held from there looks lost, and so \
             nothing is called more than possibly lost.",
            bytes(report.method.unreadable_bytes)
        ));
    }
    if report.method.unread_threads > 0 {
        say(format!(
            "The registers of {} threads could not be seen: nothing is called more than \
             possibly lost.",
            count(report.method.unread_threads)
        ));
    }
    if report.seen_from == SeenFrom::Attach {
        page.paragraph(
            Role::Dim,
            "",
            &format!("Only what was allocated in those {} is judged.", duration(report.traced_ns)),
        );
    }
}

fn push_site(page: &mut Page, number: usize, site: &ScanSite, tilde: &str) {
    let classes = &site.classes;
    let mut parts = Vec::new();
    for (name, class) in [
        ("definitely lost", classes.definitely_lost),
        ("indirectly lost", classes.indirectly_lost),
        ("possibly lost", classes.possibly_lost),
        ("still reachable", classes.still_reachable),
    ] {
        if class.blocks > 0 {
            parts.push(format!("{} {name}", amount(class, tilde)));
        }
    }
    let role = if classes.lost().blocks > 0 { Role::Leak } else { Role::Warning };
    if let Some(first) = parts.first_mut() {
        *first = format!("#{number}  {first}");
    }
    page.parts(role, "", &parts);
    if !site.examples.is_empty() {
        let some = site.examples.iter().take(3).map(|one| safe_within(one, 20));
        let some: Vec<_> = some.collect();
        page.paragraph(Role::Dim, "    ", &format!("for example {}", some.join(", ")));
    }
    stack::push(page, &site.stack, site.stack_end);
}
