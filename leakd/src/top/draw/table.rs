//! Columns, and lines made of cells.

use std::borrow::Cow;

use ratatui::buffer::Buffer;
use ratatui::style::Style;

use crate::terminal::{self, shorten_end};

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its heading.
    pub title: &'static str,
    /// Its width; 0: what the others leave.
    pub width: u16,
    /// Numbers stand at the right.
    pub right: bool,
    /// The number of the order that a click on the heading chooses.
    pub order: usize,
}

impl Column {
    /// Text, at the left.
    pub const fn text(title: &'static str, width: u16) -> Self {
        Self { title, width, right: false, order: 0 }
    }

    /// Numbers, at the right; the heading chooses an order.
    pub const fn number(title: &'static str, width: u16, order: usize) -> Self {
        Self { title, width, right: true, order }
    }
}

/// Columns with their places: begin and width.
pub fn places(columns: &[Column], width: u16) -> Vec<(u16, u16)> {
    let gaps = columns.len().saturating_sub(1) as u16;
    let fixed: u16 = columns.iter().map(|column| column.width).sum();
    let left = width.saturating_sub(fixed + gaps);
    let mut at = 0;
    columns
        .iter()
        .map(|column| {
            let wide = if column.width == 0 { left } else { column.width };
            let place = (at, wide.min(width.saturating_sub(at)));
            at = (at + wide + 1).min(width);
            place
        })
        .collect()
}

/// A cell: its text, safe already, and how it looks.
pub type Cell<'a> = (Cow<'a, str>, Style);

/// Writes a line of a table.
pub fn write(buffer: &mut Buffer, row: u16, columns: &[Column], cells: &[Cell<'_>]) {
    let places = places(columns, buffer.area.width);
    for ((column, (begin, width)), (text, style)) in columns.iter().zip(places).zip(cells) {
        put(buffer, (begin, row), width, column.right, text, *style);
    }
}

/// Writes text within some columns, cut where it is too long.
pub fn put(
    buffer: &mut Buffer,
    (column, row): (u16, u16),
    width: u16,
    right: bool,
    text: &str,
    style: Style,
) {
    if row >= buffer.area.height || column >= buffer.area.width {
        return;
    }
    let width = width.min(buffer.area.width - column);
    let text = shorten_end(text, usize::from(width));
    let indent = if right { width.saturating_sub(terminal::columns(&text) as u16) } else { 0 };
    buffer.set_stringn(column + indent, row, &text, usize::from(width - indent), style);
}
