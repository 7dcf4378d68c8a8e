//! How it looks: colours and characters, as far as the terminal has them.

use ratatui::style::{Color, Modifier, Style};

use crate::terminal::Role;

/// What the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// Colours are wanted.
    pub coloured: bool,
    /// Characters other than ASCII arrive.
    pub unicode: bool,
}

impl Theme {
    /// By the environment: NO_COLOR and its like, and the locale.
    pub fn of_terminal() -> Self {
        let coloured = crate::terminal::Style::of(&std::io::stdout()).coloured();
        // The first that is set counts: locale(7).
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .filter_map(|name| std::env::var(name).ok())
            .find(|value| !value.is_empty())
            .unwrap_or_default()
            .to_ascii_lowercase();
        Self { coloured, unicode: locale.contains("utf-8") || locale.contains("utf8") }
    }

    /// The look of a piece of text. Without colours, weight tells.
    pub fn style(self, role: Role) -> Style {
        let (colour, modifier) = match role {
            Role::Heading => (Color::Reset, Modifier::BOLD),
            Role::Leak => (Color::Red, Modifier::BOLD),
            Role::Warning => (Color::Yellow, Modifier::BOLD),
            Role::Good => (Color::Green, Modifier::empty()),
            Role::Culprit => (Color::Cyan, Modifier::BOLD),
            Role::Place => (Color::Cyan, Modifier::empty()),
            Role::Dim => (Color::Reset, Modifier::DIM),
        };
        let style = Style::new().add_modifier(modifier);
        if self.coloured && colour != Color::Reset { style.fg(colour) } else { style }
    }

    /// The line of the cursor, and the heading.
    pub fn reversed(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// The rule between the list and the panel.
    pub fn rule(self) -> char {
        if self.unicode { '─' } else { '-' }
    }

    /// Between two statements.
    pub fn dot(self) -> &'static str {
        if self.unicode { " · " } else { " | " }
    }

    /// Bars of a sparkline, lowest first.
    pub fn bars(self) -> &'static [char] {
        const BLOCKS: &[char] = &['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        const LETTERS: &[char] = &['_', '.', '-', '=', '+', '*', '#'];
        if self.unicode { BLOCKS } else { LETTERS }
    }
}
