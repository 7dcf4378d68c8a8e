//! More of what the cursor is on.

use ratatui::buffer::Buffer;
use ratatui::style::Style;

use super::header::sampling;
use super::process::{growth, stage, verdict};
use super::site::location;
use super::sparkline::{range, sparkline};
use super::table::put;
use super::theme::Theme;
use crate::protocol::{Point, ProcessView};
use crate::report::model::{Frame, Site};
use crate::report::text::culprit;
use crate::terminal::{Role, bytes, count, duration, percent, safe, shorten_start};
use crate::top::state::{Page, State};

/// Columns of the names of the sparklines.
const LABEL: u16 = 9;
/// Columns of the values beside them.
const VALUE: u16 = 10;

/// Draws five lines from `top` on.
pub fn draw(state: &State, theme: Theme, buffer: &mut Buffer, top: u16) {
    match state.page {
        Page::Processes => {
            if let Some(process) = state.selected() {
                process_panel(process, state.detail.as_deref(), theme, buffer, top);
            }
        }
        Page::Sites => {
            if let Some(site) = state.selected_site() {
                site_panel(site, theme, buffer, top);
            }
        }
        Page::Stack => {
            let Some(site) = &state.site else { return };
            let here = state.frame_list.selected();
            if let Some(frame) = here.and_then(|index| site.stack.get(index as usize)) {
                frame_panel(site, frame, theme, buffer, top);
            }
        }
    }
}

fn process_panel(
    process: &ProcessView,
    detail: Option<&ProcessView>,
    theme: Theme,
    buffer: &mut Buffer,
    top: u16,
) {
    let width = buffer.area.width;
    let same = |detail: &&ProcessView| {
        (detail.pid, detail.start_time) == (process.pid, process.start_time)
    };
    let detail = detail.filter(same);
    let who = format!("{} (pid {}) {}", safe(&process.comm), process.pid, safe(&process.exe));
    put(buffer, (0, top), width, false, &who, theme.style(Role::Heading));
    let dot = theme.dot();
    let mut facts = format!("{}{dot}{}", stage(process), verdict(process).0);
    if let Some(out) = &process.out_of_memory {
        facts += &format!("{dot}{}", crate::report::text::when_out_of_memory(out));
    }
    facts += &format!("{dot}up {}", duration(process.age_ms.saturating_mul(1_000_000)));
    if let Some(trace) = &process.trace {
        facts += &match &trace.error {
            Some(error) => format!("{dot}{}", safe(error)),
            None if trace.active => format!(
                "{dot}under trace {}{dot}{}",
                duration(trace.duration_ms.saturating_mul(1_000_000)),
                sampling(process),
            ),
            None => format!("{dot}{} ended", safe(&trace.started)),
        };
    }
    let unit = process.unit.as_deref().or(process.container.as_deref());
    facts += &unit.map_or_else(String::new, |unit| format!("{dot}{}", safe(unit)));
    put(buffer, (0, top + 1), width, false, &facts, Style::new());
    let series = detail.map_or(&[][..], |detail| &detail.series);
    line_of("memory", series, theme, buffer, top + 2);
    let trace = detail.and_then(|detail| detail.trace.as_ref());
    line_of("held", trace.map_or(&[][..], |trace| &trace.series), theme, buffer, top + 3);
    let evidence = process.trace.as_ref().and_then(|trace| trace.evidence.as_ref());
    if let Some(site) = evidence.and_then(|evidence| evidence.sites.first()) {
        let text = format!("{}/min from {}", growth(site.bytes_per_second), safe(&site.place));
        put(buffer, (0, top + 4), width, false, &text, theme.style(Role::Leak));
    }
}

/// A name, the least value, the bars, the greatest.
fn line_of(name: &str, series: &[Point], theme: Theme, buffer: &mut Buffer, row: u16) {
    let width = buffer.area.width;
    put(buffer, (0, row), LABEL, false, name, theme.style(Role::Dim));
    let Some((least, most)) = range(series) else {
        let text = if name == "held" { "not under trace" } else { "not measured yet" };
        return put(buffer, (LABEL, row), width - LABEL, false, text, theme.style(Role::Dim));
    };
    put(buffer, (LABEL, row), VALUE, true, &bytes(least), Style::new());
    let begin = LABEL + VALUE + 1;
    let span = series.first().map_or(0.0, |point| point.0).max(0.0);
    let after = format!("{} in {}", bytes(most), duration((span * 1e9) as u64));
    let room = width.saturating_sub(begin + 1 + 21);
    let bars = sparkline(series, usize::from(room), theme);
    put(buffer, (begin, row), room, false, &bars, theme.style(Role::Place));
    put(buffer, (begin + room + 1, row), 21, false, &after, Style::new());
}

fn site_panel(site: &Site, theme: Theme, buffer: &mut Buffer, top: u16) {
    let width = buffer.area.width;
    put(buffer, (0, top), width, false, &figures(site, theme), Style::new());
    // From the frame to look at first on, who called it.
    let first = culprit(&site.stack).unwrap_or(0);
    for (line, frame) in site.stack.iter().skip(first).take(4).enumerate() {
        let name = safe(frame.function.as_deref().unwrap_or(&frame.address));
        let place = location(frame);
        let by = if line == 0 { "" } else { "called by " };
        let room = usize::from(width).saturating_sub(by.len() + place.len() + 2).max(8);
        let name = crate::report::text::shorten(&name, room);
        let role = if line == 0 { Role::Culprit } else { Role::Dim };
        let text = format!("{by}{name}  {place}");
        put(buffer, (0, top + 1 + line as u16), width, false, &text, theme.style(role));
    }
}

fn figures(site: &Site, theme: Theme) -> String {
    let dot = theme.dot();
    // A report of an older daemon has no verdicts.
    let verdict = match site.verdict.evidence.is_empty() {
        true => String::new(),
        false => format!("{}{dot}", site.verdict.word.word()),
    };
    format!(
        "{verdict}allocated {}, freed {}{dot}{} kept{dot}median age {}",
        count(site.allocated_blocks),
        count(site.freed_blocks),
        percent(site.surviving_share),
        site.median_age_ns.map_or("unknown".to_owned(), duration),
    )
}

fn frame_panel(site: &Site, frame: &Frame, theme: Theme, buffer: &mut Buffer, top: u16) {
    let width = buffer.area.width;
    let room = usize::from(width);
    let held = format!(
        "holds {} in {} blocks{}{}",
        bytes(site.outstanding_bytes),
        count(site.outstanding_blocks),
        theme.dot(),
        figures(site, theme)
    );
    put(buffer, (0, top), width, false, &held, Style::new());
    let name = safe(frame.function.as_deref().unwrap_or("no name is known"));
    // Two lines for the name: those of C++ and Rust are long.
    let cut = name.char_indices().nth(room).map_or(name.len(), |(index, _)| index);
    put(buffer, (0, top + 1), width, false, &name[..cut], theme.style(Role::Culprit));
    put(buffer, (0, top + 2), width, false, &name[cut..], theme.style(Role::Culprit));
    let place = match (&frame.file, frame.line) {
        (Some(file), Some(line)) => format!("{}:{line}", safe(file)),
        (Some(file), None) => safe(file).into_owned(),
        _ => "no line is known: the program has no debug information for it".to_owned(),
    };
    put(buffer, (0, top + 3), width, false, &shorten_start(&place, room), theme.style(Role::Place));
    let module = format!(
        "{} at {}{}",
        safe(frame.module.as_deref().unwrap_or("in no file")),
        safe(&frame.address),
        if site.stack_end.complete() { "" } else { "  (the stack could not be walked to its end)" }
    );
    put(buffer, (0, top + 4), width, false, &shorten_start(&module, room), theme.style(Role::Dim));
}
