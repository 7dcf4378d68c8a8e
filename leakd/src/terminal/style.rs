//! Colours, where they are wanted.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::IsTerminal;

/// What a piece of text is, from which its colour follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The first thing to read.
    Heading,
    /// Held memory: what the report is about.
    Leak,
    /// Something was not seen or went wrong.
    Warning,
    /// All is well.
    Good,
    /// The function that is to blame.
    Culprit,
    /// File and line.
    Place,
    /// Less important than what is around it.
    Dim,
}

impl Role {
    const fn code(self) -> &'static str {
        match self {
            Self::Heading => "1",
            Self::Leak => "1;31",
            Self::Warning => "1;33",
            Self::Good => "32",
            Self::Culprit => "1;36",
            Self::Place => "36",
            Self::Dim => "2",
        }
    }
}

/// Whether colours are used. [`Style::default`] uses none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    coloured: bool,
}

impl Style {
    /// No colours.
    pub const PLAIN: Self = Self { coloured: false };
    /// Colours, whatever the environment says.
    pub const COLOURED: Self = Self { coloured: true };

    /// The style for a stream, by whether it is a terminal and by the
    /// environment.
    ///
    /// `NO_COLOR`, set and not empty, switches colours off
    /// (<https://no-color.org>); else `CLICOLOR_FORCE`, set and neither empty
    /// nor `0`, switches them on (<https://bixense.com/clicolors>); else they
    /// are on for a terminal, unless `TERM` is `dumb` or `CLICOLOR` is `0`.
    pub fn of(stream: &impl IsTerminal) -> Self {
        Self::decide(stream.is_terminal(), |name| std::env::var_os(name))
    }

    fn decide(terminal: bool, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let coloured = if set("NO_COLOR").is_some() {
            false
        } else if set("CLICOLOR_FORCE").is_some_and(|value| value != "0") {
            true
        } else {
            terminal
                && set("TERM").is_some_and(|value| value != "dumb")
                && set("CLICOLOR").is_none_or(|value| value != "0")
        };
        Self { coloured }
    }

    /// Whether colours are used.
    pub const fn coloured(self) -> bool {
        self.coloured
    }

    /// Text in the colour of its role. `text` must be safe already: see
    /// [`super::safe`].
    pub fn paint(self, role: Role, text: &str) -> Cow<'_, str> {
        if self.coloured && !text.is_empty() {
            Cow::Owned(format!("\x1b[{}m{text}\x1b[0m", role.code()))
        } else {
            Cow::Borrowed(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(terminal: bool, environment: &[(&str, &str)]) -> bool {
        Style::decide(terminal, |name| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
        })
        .coloured()
    }

    /// Check that colours go to a terminal and nowhere else, unless forced,
    /// and that NO_COLOR has the last word.
    #[test]
    fn colours_follow_the_environment() {
        let xterm = ("TERM", "xterm-256color");
        assert!(decide(true, &[xterm]));
        assert!(!decide(false, &[xterm]));
        assert!(!decide(true, &[("TERM", "dumb")]));
        assert!(!decide(true, &[]), "no TERM");
        assert!(!decide(true, &[xterm, ("NO_COLOR", "1")]));
        assert!(decide(true, &[xterm, ("NO_COLOR", "")]), "an empty NO_COLOR says nothing");
        assert!(decide(false, &[("CLICOLOR_FORCE", "1")]));
        assert!(!decide(false, &[("CLICOLOR_FORCE", "0")]));
        assert!(!decide(true, &[xterm, ("CLICOLOR", "0")]));
        assert!(!decide(true, &[xterm, ("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
    }

    /// Check that a plain style adds nothing and a coloured one resets.
    #[test]
    fn painting() {
        assert_eq!(Style::PLAIN.paint(Role::Leak, "x"), "x");
        assert_eq!(Style::COLOURED.paint(Role::Leak, "x"), "\x1b[1;31mx\x1b[0m");
        assert_eq!(Style::COLOURED.paint(Role::Leak, ""), "");
    }
}
