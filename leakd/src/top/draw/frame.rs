//! The stack of one call site.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::FIRST_ROW;
use super::site::location;
use super::table::{self, Column};
use super::theme::Theme;
use crate::report::text::{culprit, is_library, shorten};
use crate::terminal::{Role, safe, shorten_start};
use crate::top::state::State;

pub fn columns(width: u16) -> Vec<Column> {
    let place = (width / 3).clamp(12, 40);
    vec![
        Column { title: "#", width: 4, right: true, order: 0 },
        Column::text("FUNCTION", 0),
        Column::text("FILE AND LINE, OR MODULE", place),
    ]
}

pub fn draw(state: &State, theme: Theme, buffer: &mut Buffer) {
    let width = buffer.area.width;
    let Some(site) = &state.site else { return };
    if site.stack.is_empty() {
        let text = "no stack was seen of this call site";
        table::put(buffer, (0, FIRST_ROW), width, false, text, theme.style(Role::Dim));
    }
    let columns = columns(width);
    let places = table::places(&columns, width);
    let blamed = culprit(&site.stack);
    for (line, (entry, here)) in state.frame_list.visible().enumerate() {
        let Some(frame) = site.stack.get(entry as usize) else { continue };
        let row = FIRST_ROW + line as u16;
        let role = match blamed {
            Some(index) if index == entry as usize => theme.style(Role::Culprit),
            _ if is_library(frame) => theme.style(Role::Dim),
            _ => Style::new(),
        };
        let name = safe(frame.function.as_deref().unwrap_or(&frame.address));
        let inlined = if frame.inlined { " (inlined)" } else { "" };
        let room = usize::from(places[1].1).saturating_sub(inlined.len());
        let place = location(frame);
        let cells = [
            (entry.to_string().into(), role),
            (format!("{}{inlined}", shorten(&name, room)).into(), role),
            (shorten_start(&place, usize::from(places[2].1)), role),
        ];
        table::write(buffer, row, &columns, &cells);
        if here {
            buffer.set_style(Rect::new(0, row, width, 1), theme.reversed());
        }
    }
}
