//! Settings, read once and kept for as long as the server runs.

use std::collections::HashMap;

/// The settings, by name.
#[derive(Debug)]
pub struct Config {
    values: HashMap<String, String>,
}

const TEXT: &str = "\
cached-notes = 256
largest-note = 65536
greeting = welcome
";

/// Reads the settings.
#[inline(never)]
pub fn load_config() -> Config {
    let lines = TEXT.lines().filter_map(|line| line.split_once(" = "));
    Config { values: lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect() }
}

impl Config {
    /// How many notes the cache holds.
    pub fn cached_notes(&self) -> usize {
        self.number("cached-notes")
    }

    /// The greatest length of a note, in bytes.
    pub fn largest_note(&self) -> usize {
        self.number("largest-note")
    }

    /// What a user is told first.
    pub fn greeting(&self) -> &str {
        self.values.get("greeting").map_or("", String::as_str)
    }

    fn number(&self, name: &str) -> usize {
        self.values.get(name).and_then(|value| value.parse().ok()).unwrap_or(0)
    }
}
