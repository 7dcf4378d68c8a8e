//! Where a report goes, and what its status is.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;

use anyhow::Context;

use super::args::OutputArguments;
use super::status;
use crate::report::input::Snapshot;
use crate::report::text::Options;
use crate::report::{Report, Settings, build, heap_summary, json, text};
use crate::terminal::{self, Style};

/// Whether a heap summary goes before the call sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Call sites only.
    Sites,
    /// Summary and call sites, to standard error: standard output is the
    /// command's.
    Summary,
}

/// Builds the report and writes it where it belongs.
pub fn show(
    snapshot: Snapshot,
    min_age_ns: u64,
    arguments: &OutputArguments,
    form: Form,
) -> anyhow::Result<Report> {
    let report = build(snapshot, &Settings { min_age_ns, top: arguments.sites() });
    show_report(&report, arguments, form)?;
    Ok(report)
}

/// Writes a report where it belongs.
pub fn show_report(report: &Report, arguments: &OutputArguments, form: Form) -> anyhow::Result<()> {
    if let Some(path) = &arguments.output {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let options = Options { all_frames: arguments.all_frames, ..Options::default() };
        let mut file = BufWriter::new(file);
        write(report, &options, arguments.json, form, &mut file)
            .and_then(|()| file.flush())
            .with_context(|| format!("cannot write {}", path.display()))?;
    } else if form == Form::Summary && !arguments.json {
        to_stream(report, arguments, form, io::stderr().lock())?;
    } else {
        to_stream(report, arguments, form, io::stdout().lock())?;
    }
    Ok(())
}

fn to_stream(
    report: &Report,
    arguments: &OutputArguments,
    form: Form,
    stream: impl Write + IsTerminal + AsFd,
) -> anyhow::Result<()> {
    let options = Options {
        style: Style::of(&stream),
        width: terminal::width(&stream),
        all_frames: arguments.all_frames,
    };
    let mut stream = BufWriter::new(stream);
    match write(report, &options, arguments.json, form, &mut stream).and_then(|()| stream.flush()) {
        // `leakctl ... | head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write the report"),
    }
}

fn write(
    report: &Report,
    options: &Options,
    as_json: bool,
    form: Form,
    output: &mut impl Write,
) -> io::Result<()> {
    if as_json {
        return json::write(report, output);
    }
    if form == Form::Summary {
        output.write_all(heap_summary(report, options).as_bytes())?;
        output.write_all(b"\n")?;
    }
    output.write_all(text::render(report, options).as_bytes())
}

/// The exit status that a report stands for: whether any call site holds
/// blocks that are old enough to count.
pub fn status_of(report: &Report) -> u8 {
    let found = report.targets.iter().flat_map(|target| &target.sites).any(|s| s.aged_blocks > 0);
    if found { status::LEAKS } else { status::CLEAN }
}
