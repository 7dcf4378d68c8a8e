//! The keyboard map: one table, which keys obey and `?` shows.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The cursor, by lines.
    Move(isize),
    /// The cursor, by screens.
    Page(isize),
    /// To the first line.
    First,
    /// To the last line.
    Last,
    /// To the call sites, then to the stack.
    Enter,
    /// Back to where Enter came from; or forget the filter.
    Back,
    /// The next order.
    NextOrder,
    /// This order, by its number from 1.
    Order(usize),
    /// The other way round.
    Reverse,
    /// Type a filter.
    Filter,
    /// All processes, or those that grow or are or were traced.
    All,
    /// More call sites.
    More,
    /// Hold everything still.
    Pause,
    /// Ask again at once.
    Refresh,
    /// Trace the process.
    Attach,
    /// Trace it no more.
    Detach,
    /// Let the terminal have the mouse, or take it.
    Mouse,
    /// The keyboard map.
    Help,
    /// End.
    Quit,
    /// Give the shell the terminal.
    Suspend,
}

/// A line of the map: keys, how they are called, what they do.
pub type Binding = (&'static [(KeyCode, KeyModifiers)], &'static str, Action, &'static str);

const NONE: KeyModifiers = KeyModifiers::NONE;
const CTRL: KeyModifiers = KeyModifiers::CONTROL;

const fn key(character: char) -> (KeyCode, KeyModifiers) {
    (KeyCode::Char(character), NONE)
}

const fn ctrl(character: char) -> (KeyCode, KeyModifiers) {
    (KeyCode::Char(character), CTRL)
}

const fn code(code: KeyCode) -> (KeyCode, KeyModifiers) {
    (code, NONE)
}

/// The map.
#[rustfmt::skip]
pub const BINDINGS: &[Binding] = &[
    (&[code(KeyCode::Up), key('k'), ctrl('p')], "Up k", Action::Move(-1), "one line up"),
    (&[code(KeyCode::Down), key('j'), ctrl('n')], "Down j", Action::Move(1), "one line down"),
    (&[code(KeyCode::PageUp), ctrl('b')], "PageUp", Action::Page(-1), "one screen up"),
    (&[code(KeyCode::PageDown), ctrl('f')], "PageDown", Action::Page(1), "one screen down"),
    (&[code(KeyCode::Home), key('g')], "Home g", Action::First, "to the first line"),
    (&[code(KeyCode::End), key('G')], "End G", Action::Last, "to the last line"),
    (&[code(KeyCode::Enter), code(KeyCode::Right), key('l')], "Enter Right", Action::Enter,
        "call sites of the process; stack of the call site"),
    (&[code(KeyCode::Esc), code(KeyCode::Backspace), code(KeyCode::Left), key('h')], "Esc Left",
        Action::Back, "back; forget the filter"),
    (&[key('s')], "s", Action::NextOrder, "the next order; or click on a heading"),
    (&[key('1')], "1 to 5", Action::Order(1), "order by growth, held, cost, memory, pid"),
    (&[key('2')], "", Action::Order(2), ""),
    (&[key('3')], "", Action::Order(3), ""),
    (&[key('4')], "", Action::Order(4), ""),
    (&[key('5')], "", Action::Order(5), ""),
    (&[key('r')], "r", Action::Reverse, "the other way round"),
    (&[key('/')], "/", Action::Filter, "show only what has this text"),
    (&[key('t')], "t", Action::All, "all processes, or those that grow or were traced"),
    (&[key('+'), key('=')], "+", Action::More, "ask for more call sites"),
    (&[key('p'), key(' ')], "p Space", Action::Pause, "pause, go on"),
    (&[key('u'), ctrl('l')], "u Ctrl-L", Action::Refresh, "ask and draw again now"),
    (&[key('a')], "a", Action::Attach, "put the process under trace"),
    (&[key('d')], "d", Action::Detach, "take its probes out and leave it alone"),
    (&[key('m')], "m", Action::Mouse, "mouse to the terminal (to copy text), and back"),
    (&[key('?'), code(KeyCode::F(1))], "? F1", Action::Help, "this help"),
    (&[key('q'), ctrl('c')], "q Ctrl-C", Action::Quit, "end; what is traced goes on"),
    (&[ctrl('z')], "Ctrl-Z", Action::Suspend, "back to the shell; `fg` returns"),
];

/// What a key does, if anything.
pub fn of(event: KeyEvent) -> Option<Action> {
    // Shift is in the character already.
    let modifiers = event.modifiers.difference(KeyModifiers::SHIFT);
    let found = |binding: &&Binding| binding.0.contains(&(event.code, modifiers));
    BINDINGS.iter().find(found).map(|binding| binding.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that no key has two meanings, and that the help fits 80x24.
    #[test]
    fn map_is_consistent() {
        let mut keys = Vec::new();
        for (bound, name, _, help) in BINDINGS {
            for key in *bound {
                assert!(!keys.contains(key), "{key:?} twice");
                keys.push(*key);
            }
            assert!(name.len() <= 12 && help.len() <= 60, "{name}: {help}");
            assert_eq!(name.is_empty(), help.is_empty());
        }
        let lines = BINDINGS.iter().filter(|binding| !binding.1.is_empty()).count();
        assert!(lines <= 22, "{lines} lines");
    }

    /// Check that capital letters are found with and without Shift.
    #[test]
    fn shift() {
        for modifiers in [KeyModifiers::NONE, KeyModifiers::SHIFT] {
            assert_eq!(of(KeyEvent::new(KeyCode::Char('G'), modifiers)), Some(Action::Last));
        }
        assert_eq!(of(KeyEvent::new(KeyCode::Char('a'), KeyModifiers::CONTROL)), None);
        assert_eq!(of(KeyEvent::new(KeyCode::Char('c'), CTRL)), Some(Action::Quit));
    }
}
