//! The report for programs: one JSON document.

use std::io::{self, Write};

use super::model::Report;

/// Writes the report as one indented document and a newline. The order of the
/// fields is that of the model, so that two reports can be compared by line.
///
/// # Errors
/// If `output` cannot be written.
pub fn write(report: &Report, mut output: impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut output, report)?;
    output.write_all(b"\n")
}
