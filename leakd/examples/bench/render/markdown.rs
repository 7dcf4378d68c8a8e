//! The part of docs/BENCHMARKS.md that a run writes.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::html::duration;
use super::table;
use crate::model::Document;

/// What stands between these lines is replaced.
const BEGIN: &str = "<!-- written by cargo xtask bench --write-docs: begin -->";
const END: &str = "<!-- end -->";

/// Writes the results into the page.
pub fn write(document: &Document) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/BENCHMARKS.md");
    let page =
        fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let (before, rest) = page.split_once(BEGIN).context("the page has no place for results")?;
    let (_, after) = rest.split_once(END).context("the page's place for results has no end")?;
    let text = format!("{before}{BEGIN}\n\n{}\n{END}{after}", results(document));
    fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))
}

fn results(document: &Document) -> String {
    let mut text = format!(
        "{} rounds, {}, {}; load average {:.1} before, {:.1} after, this run's own included.\n",
        document.rounds,
        document.started,
        duration(document.seconds),
        document.load.0,
        document.load.1
    );
    for lines in table::all(document) {
        text += &format!("\n```text\n{}\n```\n", lines.join("\n"));
    }
    text
}
