//! Lines of a page: wrapped, coloured, joined.

use super::Options;
use crate::terminal::{Role, Style, columns, shorten_end};

/// The text of a report while it grows.
#[derive(Debug)]
pub struct Page {
    text: String,
    pub style: Style,
    pub width: usize,
    pub all_frames: bool,
}

impl Page {
    /// An empty page.
    pub fn new(options: &Options) -> Self {
        Self {
            text: String::new(),
            style: options.style,
            width: options.width.max(40),
            all_frames: options.all_frames,
        }
    }

    /// Adds a line as it is: its parts are painted and known to fit.
    pub fn raw(&mut self, line: &str) {
        self.text.push_str(line.trim_end_matches(' '));
        self.text.push('\n');
    }

    /// Adds an empty line.
    pub fn blank(&mut self) {
        self.text.push('\n');
    }

    /// Adds one line in one colour, cut to the page.
    pub fn line(&mut self, role: Role, text: &str) {
        let fitting = shorten_end(text, self.width);
        let painted = self.style.paint(role, &fitting).into_owned();
        self.raw(&painted);
    }

    /// Adds a paragraph in one colour, broken between words; all of it is
    /// indented, from the second line on by two columns more.
    pub fn paragraph(&mut self, role: Role, indent: &str, text: &str) {
        self.flow(role, indent, words(text).into_iter(), " ");
    }

    /// Adds parts joined by `separator`, broken only between parts.
    pub fn parts(&mut self, role: Role, indent: &str, parts: &[String]) {
        self.flow(role, indent, parts.iter().map(String::as_str), "; ");
    }

    fn flow<'a>(
        &mut self,
        role: Role,
        indent: &str,
        parts: impl Iterator<Item = &'a str>,
        separator: &str,
    ) {
        let mut line = indent.to_owned();
        let mut empty = true;
        for part in parts {
            let room = columns(&line) + columns(separator) + columns(part);
            // What trails at the break still needs its place in the line.
            if !empty && room + columns(separator.trim_end()) > self.width {
                line.push_str(separator.trim_end());
                self.line(role, &line);
                line = format!("{indent}  ");
                empty = true;
            }
            if !empty {
                line.push_str(separator);
            }
            line.push_str(part);
            empty = false;
        }
        self.line(role, &line);
    }

    /// The text.
    pub fn finish(self) -> String {
        self.text
    }
}

/// The words of a text; a number and its unit are one.
fn words(text: &str) -> Vec<&str> {
    const UNITS: &[&str] =
        &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ns", "us", "ms", "s", "%"];
    let mut words: Vec<&str> = Vec::new();
    let mut begin = 0;
    for word in text.split(' ') {
        let end = begin + word.len();
        let unit = word.trim_end_matches([',', '.', ';', ':', ')']);
        match words.last_mut() {
            Some(number)
                if UNITS.contains(&unit) && number.ends_with(|c: char| c.is_ascii_digit()) =>
            {
                // The number ends one space before this word begins.
                *number = &text[begin - 1 - number.len()..end];
            }
            _ => words.push(word),
        }
        begin = end + 1;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that no line ends between a number and its unit.
    #[test]
    fn numbers_stay_with_their_units() {
        assert_eq!(words("10.0 s, or ~3 MiB (5 %)."), ["10.0 s,", "or", "~3 MiB", "(5 %)."]);
        assert_eq!(words("a s 1  B"), ["a", "s", "1", "", "B"]);
        assert_eq!(words(""), [""]);
    }
}
