//! Reading the files. An error names file, line and key.

use std::fs;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Table;
use toml::de::{DeTable, DeValue};

use super::{Config, KEYS};

/// The file, unless the command line names another. Drop-ins lie beside it, in
/// a directory named `leakd.d`.
pub const DEFAULT_PATH: &str = "/etc/leakd/leakd.toml";

const DROP_INS: &str = "leakd.d";
const LARGEST_FILE: u64 = 1 << 20;
/// Names more different than this (Jaro-Winkler) are no slip of each other.
const SIMILAR: f64 = 0.7;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file is wrong.
    #[error("{}:{line}: {message}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, with the key.
        message: String,
    },
    /// The files contradict each other.
    #[error("the configuration files together: {0}")]
    Together(String),
}

/// A configuration and where it comes from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// The files, in the order in which they were read: later ones win.
    pub files: Vec<PathBuf>,
}

/// Reads a file and its drop-ins, in order of their names. `must_exist`: that
/// the file is not there is an error; otherwise, all keys have their defaults.
pub fn load(path: &Path, must_exist: bool) -> Result<Loaded, ConfigError> {
    let mut merged = Table::new();
    let mut files = Vec::new();
    match read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => {}
        Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
        Ok(text) => {
            merge(&mut merged, parse(path, &text)?);
            files.push(path.to_owned());
        }
    }
    for path in drop_ins(path)? {
        let text =
            read(&path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        merge(&mut merged, parse(&path, &text)?);
        files.push(path);
    }
    let config = toml::Value::Table(merged)
        .try_into()
        .map_err(|error: toml::de::Error| ConfigError::Together(error.message().to_owned()))?;
    Ok(Loaded { config, files })
}

fn drop_ins(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let directory = path.with_file_name(DROP_INS);
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(ConfigError::Read { path: directory, source }),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry =
            entry.map_err(|source| ConfigError::Read { path: directory.clone(), source })?;
        let path = entry.path();
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(LARGEST_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST_FILE {
        return Err(std::io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
}

/// Reads one file. It is checked as a whole configuration, so that a wrong
/// value is found with its line.
fn parse(path: &Path, text: &str) -> Result<Table, ConfigError> {
    let wrong = |span: Option<Range<usize>>, message: String| ConfigError::Wrong {
        path: path.to_owned(),
        line: line_of(text, span.map_or(0, |span| span.start)),
        message,
    };
    let from_toml = |error: toml::de::Error| {
        let span = error.span();
        let key = span.clone().and_then(|span| key_at(text, span));
        let message = error.message().trim().replace('\n', ", ");
        wrong(span, key.map_or(message.clone(), |key| format!("`{key}`: {message}")))
    };
    let table = DeTable::parse(text).map_err(from_toml)?;
    check_keys(table.get_ref(), "").map_err(|(span, message)| wrong(Some(span), message))?;
    let _: Config = toml::from_str(text).map_err(from_toml)?;
    toml::from_str(text).map_err(from_toml)
}

fn check_keys(table: &DeTable<'_>, section: &str) -> Result<(), (Range<usize>, String)> {
    for (key, value) in table {
        let name = key.get_ref();
        let full = if section.is_empty() { name.to_string() } else { format!("{section}.{name}") };
        if KEYS.iter().any(|key| key.name == full) {
            continue;
        }
        let inside = format!("{full}.");
        match value.get_ref() {
            DeValue::Table(table) if KEYS.iter().any(|key| key.name.starts_with(&inside)) => {
                check_keys(table, &full)?;
            }
            _ => {
                let hint = nearest(&full, name)
                    .map_or_else(String::new, |nearest| format!("; did you mean `{nearest}`?"));
                return Err((key.span(), format!("there is no key `{full}`{hint}")));
            }
        }
    }
    Ok(())
}

/// The key, or section, that is most like this one.
fn nearest(full: &str, name: &str) -> Option<&'static str> {
    let sections = KEYS.iter().filter_map(|key| Some(key.name.split_once('.')?.0));
    let likeness = |candidate: &str| {
        let leaf = candidate.rsplit('.').next().unwrap_or(candidate);
        strsim::jaro_winkler(candidate, full).max(strsim::jaro_winkler(leaf, name) - 0.001)
    };
    KEYS.iter()
        .map(|key| key.name)
        .chain(sections)
        .map(|candidate| (likeness(candidate), candidate))
        .filter(|(likeness, _)| *likeness >= SIMILAR)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, candidate)| candidate)
}

/// The key of the line that `span` begins in: what stands before its `=`.
fn key_at(text: &str, span: Range<usize>) -> Option<&str> {
    let begin = text.get(..span.start)?.rfind('\n').map_or(0, |newline| newline + 1);
    let (key, _) = text.get(begin..)?.lines().next()?.split_once('=')?;
    Some(key.trim()).filter(|key| !key.is_empty())
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// Later files win, key by key.
fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(into)), toml::Value::Table(from)) => merge(into, from),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}
