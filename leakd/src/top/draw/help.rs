//! The keyboard map.

use ratatui::buffer::Buffer;
use ratatui::style::Style;

use super::table::put;
use super::theme::Theme;
use crate::terminal::Role;
use crate::top::action::BINDINGS;

pub fn draw(theme: Theme, buffer: &mut Buffer) {
    let (width, height) = (buffer.area.width, buffer.area.height);
    let title = "leakctl top: keys (any key goes back)";
    put(buffer, (0, 0), width, false, title, theme.style(Role::Heading));
    let shown = BINDINGS.iter().filter(|binding| !binding.1.is_empty());
    for (row, (_, keys, _, help)) in (1..height).zip(shown) {
        put(buffer, (1, row), 12, false, keys, theme.style(Role::Culprit));
        put(buffer, (14, row), width.saturating_sub(14), false, help, Style::new());
    }
}
