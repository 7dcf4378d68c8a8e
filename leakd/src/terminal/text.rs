//! Text that no terminal can be commanded with, and that fits.

use std::borrow::Cow;

/// Characters that [`safe`] keeps at most.
pub const LIMIT: usize = 4096;

const ELLIPSIS: &str = "...";

/// Text made safe to print: control characters (C0, C1, DEL), characters that
/// change the direction of writing, invisible ones and line separators become
/// visible escapes, `\x1b` or `\u{202e}`; at most [`LIMIT`] characters stay.
///
/// Newline and tab are control characters too: what is printed is one line.
pub fn safe(text: &str) -> Cow<'_, str> {
    safe_within(text, LIMIT)
}

/// As [`safe`], with a limit in characters of the result.
pub fn safe_within(text: &str, limit: usize) -> Cow<'_, str> {
    // Bytes bound characters from above, so short text needs no counting.
    if !text.chars().any(dangerous) && (text.len() <= limit || text.chars().count() <= limit) {
        return Cow::Borrowed(text);
    }
    let room = limit.saturating_sub(ELLIPSIS.len());
    let mut result = String::new();
    let mut length = 0;
    let mut fitting = 0; // length in bytes of what an ellipsis can follow
    for character in text.chars() {
        let before = result.len();
        if !dangerous(character) {
            result.push(character);
            length += 1;
        } else {
            let code = character as u32;
            let escape =
                if code < 0x100 { format!("\\x{code:02x}") } else { format!("\\u{{{code:x}}}") };
            length += escape.len();
            result.push_str(&escape);
        }
        if length <= room {
            fitting = result.len();
        }
        if length > limit {
            debug_assert!(fitting <= before);
            result.truncate(fitting);
            result.push_str(&ELLIPSIS[..limit.min(ELLIPSIS.len())]);
            break;
        }
    }
    Cow::Owned(result)
}

/// Whether a character can do anything but show itself.
fn dangerous(character: char) -> bool {
    matches!(character,
        '\0'..='\x1f' | '\x7f'..='\u{9f}'
        | '\u{ad}' // soft hyphen
        | '\u{61c}' | '\u{200b}'..='\u{200f}' // zero width, direction marks
        | '\u{2028}'..='\u{202e}' // line separators, bidi embeddings and overrides
        | '\u{2060}'..='\u{206f}' // invisible operators, bidi isolates
        | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{180e}' | '\u{ffa0}' // blank letters
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e0fff}') // tags, variation selectors
}

/// Columns that text takes on a terminal. East Asian wide characters and
/// emoji take two, combining marks none. `text` must be [`safe`].
pub fn columns(text: &str) -> usize {
    if text.is_ascii() {
        return text.len();
    }
    text.chars().map(character_columns).sum()
}

fn character_columns(character: char) -> usize {
    match character {
        '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{20d0}'..='\u{20ff}' => 0,
        '\u{fe00}'..='\u{fe0f}' | '\u{fe20}'..='\u{fe2f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{303e}'
        | '\u{3041}'..='\u{a4cf}'
        | '\u{a960}'..='\u{a97f}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff01}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1f64f}'
        | '\u{1f680}'..='\u{1f6ff}'
        | '\u{1f900}'..='\u{1f9ff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

/// The longest prefix of `text` of at most `room` columns.
fn head(text: &str, room: usize) -> &str {
    let mut used = 0;
    for (index, character) in text.char_indices() {
        used += character_columns(character);
        if used > room {
            return &text[..index];
        }
    }
    text
}

/// The longest suffix of `text` of at most `room` columns.
fn tail(text: &str, room: usize) -> &str {
    let mut used = 0;
    for (index, character) in text.char_indices().rev() {
        used += character_columns(character);
        if used > room {
            return &text[index + character.len_utf8()..];
        }
    }
    text
}

/// Shortens to `room` columns by cutting the end off.
pub fn shorten_end(text: &str, room: usize) -> Cow<'_, str> {
    if columns(text) <= room {
        return Cow::Borrowed(text);
    }
    if room <= ELLIPSIS.len() {
        return Cow::Owned(head(text, room).to_owned());
    }
    Cow::Owned(format!("{}{ELLIPSIS}", head(text, room - ELLIPSIS.len())))
}

/// Shortens to `room` columns by cutting the start off: what tells paths
/// apart is at their end.
pub fn shorten_start(text: &str, room: usize) -> Cow<'_, str> {
    if columns(text) <= room {
        return Cow::Borrowed(text);
    }
    if room <= ELLIPSIS.len() {
        return Cow::Owned(tail(text, room).to_owned());
    }
    Cow::Owned(format!("{ELLIPSIS}{}", tail(text, room - ELLIPSIS.len())))
}

/// Shortens to `room` columns by cutting the middle out; two thirds of what
/// stays are from the start.
pub fn shorten_middle(text: &str, room: usize) -> Cow<'_, str> {
    if columns(text) <= room {
        return Cow::Borrowed(text);
    }
    if room <= ELLIPSIS.len() + 2 {
        return shorten_end(text, room);
    }
    let kept = room - ELLIPSIS.len();
    let start = head(text, kept * 2 / 3);
    Cow::Owned(format!("{start}{ELLIPSIS}{}", tail(text, kept - columns(start))))
}

/// Fills text up with spaces to `room` columns; longer text stays as it is.
pub fn pad(text: &str, room: usize) -> String {
    let missing = room.saturating_sub(columns(text));
    let mut padded = String::with_capacity(text.len() + missing);
    padded.push_str(text);
    padded.extend(std::iter::repeat_n(' ', missing));
    padded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Check that ordinary text, letters of any script included, is untouched.
    #[test]
    fn ordinary_text_is_borrowed() {
        for text in ["", "malloc", "größe::Länge", "日本語", "a b", "emoji 🙂"] {
            assert!(matches!(safe(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    /// Check that everything a terminal could obey becomes visible.
    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(safe("a\x1b[31mred\x07"), "a\\x1b[31mred\\x07");
        assert_eq!(safe("line\r\nnext\ttab\x7f"), "line\\x0d\\x0anext\\x09tab\\x7f");
        assert_eq!(safe("\u{9b}2J"), "\\x9b2J", "C1 control sequence introducer");
        assert_eq!(safe("user\u{202e}txt.exe\u{2066}"), "user\\u{202e}txt.exe\\u{2066}");
        assert_eq!(
            safe("\u{200b}\u{feff}\u{e0041}\u{2028}"),
            "\\u{200b}\\u{feff}\\u{e0041}\\u{2028}"
        );
    }

    /// Check that the length is bounded, and that no escape is cut in two.
    #[test]
    fn length_is_bounded() {
        assert_eq!(safe(&"x".repeat(LIMIT)).len(), LIMIT);
        assert_eq!(safe(&"x".repeat(LIMIT + 1)).len(), LIMIT);
        assert_eq!(safe_within("abcdef", 6), "abcdef");
        assert_eq!(safe_within("abcdefg", 6), "abc...");
        assert_eq!(safe_within("ab\x1bdefghi", 8), "ab...");
        assert_eq!(safe_within("\x1b", 4), "\\x1b");
        assert_eq!(safe_within("abc", 2), "..");
    }

    /// Check that shortening keeps the ends that it promises to keep.
    #[test]
    fn shortening() {
        assert_eq!(shorten_middle("abcdefghijklmnop", 12), "abcdef...nop");
        assert_eq!(shorten_start("/usr/src/server/main.c", 13), "...ver/main.c");
        assert_eq!(shorten_end("abcdefgh", 6), "abc...");
        assert_eq!(shorten_middle("日本語日本語日本語", 10), "日本...語");
        assert_eq!(pad("日本", 6), "日本  ");
    }

    proptest! {
        /// Check that whatever comes in, what goes out has no control
        /// character and no more characters than the limit.
        #[test]
        fn whatever_comes_in(text in "\\PC*|[\\x00-\\x9f\u{202a}-\u{202e}a-z]*", limit in 0usize..50) {
            let result = safe_within(&text, limit);
            prop_assert!(result.chars().count() <= limit);
            prop_assert!(!result.chars().any(|c| c.is_control() || dangerous(c)));
        }

        /// Check that shortened text takes no more columns than allowed.
        #[test]
        fn shortened_text_fits(text in "[a-z日本é🙂]*", room in 0usize..40) {
            prop_assert!(columns(&shorten_middle(&text, room)) <= room);
            prop_assert!(columns(&shorten_start(&text, room)) <= room);
            prop_assert!(columns(&shorten_end(&text, room)) <= room);
        }
    }
}
