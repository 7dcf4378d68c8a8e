//! Draws the state. Everything here is a pure function of it, and only what is
//! visible is formatted.
//!
//! | lines | hold |
//! |---|---|
//! | first | what the page is about |
//! | second | the governor and what was lost: always |
//! | third | headings |
//! | | the list |
//! | six, if there is room | the panel: more of what the cursor is on |
//! | last | keys, or what has to be said or asked |

mod frame;
mod header;
mod help;
mod panel;
mod process;
mod site;
mod sparkline;
mod table;
mod theme;

pub use theme::Theme;

use ratatui::buffer::Buffer;

use super::rows::{PROCESS_ORDERS, SITE_ORDERS};
use super::state::{Page, State};
use crate::terminal::{Role, safe};
use table::{Column, put};

/// The line of the headings.
pub const HEADING_ROW: u16 = 2;
/// The first line of the list.
pub const FIRST_ROW: u16 = 3;
/// Lines of the panel, its rule included.
const PANEL: u16 = 6;
/// What is less high has no panel.
const PANEL_FROM: u16 = 18;
/// What is smaller is not drawn.
const LEAST: (u16, u16) = (30, 6);

/// Lines that the list has.
pub fn rows((_, height): (u16, u16)) -> usize {
    usize::from(height.saturating_sub(FIRST_ROW + 1 + panel_height(height)))
}

fn panel_height(height: u16) -> u16 {
    if height >= PANEL_FROM { PANEL } else { 0 }
}

/// The columns of a page.
fn columns(page: Page, width: u16) -> Vec<Column> {
    match page {
        Page::Processes => process::columns(width),
        Page::Sites => site::columns(width),
        Page::Stack => frame::columns(width),
    }
}

/// The number of the order that the heading at this column is for.
pub fn order_at(state: &State, column: u16) -> Option<usize> {
    let columns = columns(state.page, state.size.0);
    let places = table::places(&columns, state.size.0);
    let hit = |(_, (begin, width)): &(&Column, (u16, u16))| {
        (*begin..begin.saturating_add(*width)).contains(&column)
    };
    let (found, _) = columns.iter().zip(places).find(hit)?;
    (found.order > 0).then_some(found.order)
}

/// Draws everything. The buffer begins at 0, 0.
pub fn draw(state: &State, theme: Theme, buffer: &mut Buffer) {
    let (width, height) = (buffer.area.width, buffer.area.height);
    if width < LEAST.0 || height < LEAST.1 {
        put(buffer, (0, 0), width, false, "leakctl: too small", theme.style(Role::Warning));
        return;
    }
    if state.help {
        return help::draw(theme, buffer);
    }
    header::draw(state, theme, buffer);
    headings(state, theme, buffer);
    let bottom = height - 1 - panel_height(height);
    match state.page {
        Page::Processes => process::draw(state, theme, buffer),
        Page::Sites => site::draw(state, theme, buffer),
        Page::Stack => frame::draw(state, theme, buffer),
    }
    if panel_height(height) > 0 {
        let rule: String = std::iter::repeat_n(theme.rule(), usize::from(width)).collect();
        put(buffer, (0, bottom), width, false, &rule, theme.style(Role::Dim));
        panel::draw(state, theme, buffer, bottom + 1);
    }
    footer(state, theme, buffer, height - 1);
}

fn headings(state: &State, theme: Theme, buffer: &mut Buffer) {
    let width = buffer.area.width;
    let blank = " ".repeat(usize::from(width));
    put(buffer, (0, HEADING_ROW), width, false, &blank, theme.reversed());
    let columns = columns(state.page, width);
    let (order, reverse) = match state.page {
        Page::Processes => {
            (PROCESS_ORDERS.iter().position(|order| order.0 == state.sort), state.reverse)
        }
        Page::Sites => {
            (SITE_ORDERS.iter().position(|order| order.0 == state.site_order), state.site_reverse)
        }
        Page::Stack => (None, false),
    };
    let mark = if reverse { '<' } else { '>' };
    let cells: Vec<_> = columns
        .iter()
        .map(|column| {
            let here = column.order > 0 && order == Some(column.order - 1);
            let text = if here { format!("{mark}{}", column.title) } else { column.title.into() };
            (text.into(), theme.reversed())
        })
        .collect();
    table::write(buffer, HEADING_ROW, &columns, &cells);
}

/// The last line.
fn footer(state: &State, theme: Theme, buffer: &mut Buffer, row: u16) {
    let width = buffer.area.width;
    let filter = if state.page == Page::Sites { &state.site_filter } else { &state.filter };
    let (text, role) = if let Some(question) = &state.question {
        let what = if question.attach { "attach to" } else { "detach from" };
        let name = safe(&question.comm);
        (format!("{what} {name} (pid {})? y/n", question.pid), Role::Warning)
    } else if state.typing {
        let hint = "   Enter keeps it, Esc forgets it";
        (format!("filter: {}_{hint}", safe(filter.text())), Role::Heading)
    } else if let Some(said) = state.saying() {
        match said {
            Ok(message) => (safe(message).into_owned(), Role::Good),
            Err(message) => (safe(message).into_owned(), Role::Leak),
        }
    } else if !filter.text().is_empty() && state.page != Page::Stack {
        let keys = "Esc shows all again, / changes it, ? help";
        (format!("filter: {}   {keys}", safe(filter.text())), Role::Heading)
    } else {
        let keys = match state.page {
            Page::Processes => {
                "Enter call sites  s order  / filter  a attach  d detach  p pause  ? help  q quit"
            }
            Page::Sites => {
                "Enter stack  Esc back  s order  / filter  + more  a attach  ? help  q quit"
            }
            Page::Stack => "Esc back  Up Down frames  p pause  a attach  d detach  ? help  q quit",
        };
        (keys.to_owned(), Role::Dim)
    };
    put(buffer, (0, row), width, false, &text, theme.style(role));
}

#[cfg(test)]
mod tests;
