//! The list of call sites of one process.

use ratatui::buffer::Buffer;
use ratatui::style::Style;

use super::FIRST_ROW;
use super::process::growth;
use super::table::{self, Cell, Column};
use super::theme::Theme;
use crate::report::model::{Frame, Site};
use crate::report::text::{culprit, shorten};
use crate::terminal::{Role, bytes, columns as width_of, count, duration, percent, safe};
use crate::top::state::State;

pub fn columns(width: u16) -> Vec<Column> {
    let mut columns = vec![
        Column::number("HELD", 10, 2),
        Column::number("BLOCKS", 9, 3),
        Column::number("GROWTH/MIN", 11, 4),
        Column::number("OLDEST", 8, 5),
    ];
    if width >= 100 {
        columns.push(Column::number("KEPT", 8, 0));
        columns.push(Column::number("SUSPECT", 10, 1));
    }
    columns.push(Column::text("WHERE", 0));
    columns
}

pub fn draw(state: &State, theme: Theme, buffer: &mut Buffer) {
    let width = buffer.area.width;
    let estimated = match &state.target {
        None => {
            let text = "asking for call sites ...";
            return table::put(buffer, (0, FIRST_ROW), width, false, text, theme.style(Role::Dim));
        }
        Some(Err(error)) => {
            let role = theme.style(Role::Warning);
            table::put(buffer, (0, FIRST_ROW), width, false, &safe(error), role);
            if state.owner().is_some_and(|process| process.running) {
                let text = "a puts it under trace; what it allocates from then on is seen";
                table::put(buffer, (0, FIRST_ROW + 1), width, false, text, Style::new());
            }
            return;
        }
        Some(Ok(target)) => target.outstanding.estimated,
    };
    if state.site_list.is_empty() {
        let text = if state.site_filter.text().is_empty() {
            "nothing that was allocated under trace is outstanding"
        } else {
            "no call site has the text of the filter"
        };
        table::put(buffer, (0, FIRST_ROW), width, false, text, theme.style(Role::Dim));
    }
    let columns = columns(width);
    let room = table::places(&columns, width).last().map_or(0, |place| usize::from(place.1));
    for (line, (entry, here)) in state.site_list.visible().enumerate() {
        let Some(site) = state.sites().get(entry as usize) else { continue };
        let row = FIRST_ROW + line as u16;
        table::write(buffer, row, &columns, &cells(site, estimated, width, room, theme));
        if here {
            buffer.set_style(ratatui::layout::Rect::new(0, row, width, 1), theme.reversed());
        }
    }
}

fn cells(site: &Site, estimated: bool, width: u16, room: usize, theme: Theme) -> Vec<Cell<'_>> {
    let plain = Style::new();
    let tilde = if estimated { "~" } else { "" };
    let mut cells = vec![
        (format!("{tilde}{}", bytes(site.outstanding_bytes)).into(), plain),
        (format!("{tilde}{}", count(site.outstanding_blocks)).into(), plain),
        (growth(site.growth_bytes_per_second).into(), plain),
        (site.oldest_age_ns.map_or("-".to_owned(), duration).into(), plain),
    ];
    if width >= 100 {
        cells.push((percent(site.surviving_share).into(), plain));
        cells.push((bytes(site.rank_bytes).into(), plain));
    }
    cells.push((place(site, room).into(), theme.style(Role::Culprit)));
    cells
}

/// The frame to look at first, in so many columns.
pub fn place(site: &Site, room: usize) -> String {
    let Some(frame) = culprit(&site.stack).and_then(|index| site.stack.get(index)) else {
        return "no stack was seen".to_owned();
    };
    let place = location(frame);
    let name = safe(frame.function.as_deref().unwrap_or(&frame.address));
    // The line is worth more than the whole name.
    let left = room.saturating_sub(width_of(&place) + 1);
    if left < 8 {
        return shorten(&name, room).into_owned();
    }
    format!("{} {place}", shorten(&name, left)).trim_end().to_owned()
}

/// Where a frame is, without directories: `server.c:12`, or `libc.so.6`.
pub fn location(frame: &Frame) -> String {
    let base = |path: &str| safe(path.rsplit('/').next().unwrap_or(path)).into_owned();
    match (&frame.file, frame.line, &frame.module) {
        (Some(file), Some(line), _) => format!("{}:{line}", base(file)),
        (Some(file), None, _) => base(file),
        (None, _, Some(module)) => base(module),
        (None, _, None) => String::new(),
    }
}
