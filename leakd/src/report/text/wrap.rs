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
        self.flow(role, indent, text.split(' '), " ");
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
