//! Tables for a terminal of 80 columns.

use super::{factor, mebibytes, number, or_dash, range, word};
use crate::model::{
    Accuracy, Compared, Document, Figures, Goal, Overhead, Regression, Row, Scale, Scan, is_peer,
};
use crate::tracer::LEAKD;

/// The first lines.
pub fn head(document: &Document) -> Vec<String> {
    let mut lines = vec![document.machine.line()];
    for tracer in &document.tracers {
        let state = match (&tracer.missing, &tracer.version) {
            (Some(why), _) => format!("MISSING: {why}"),
            (None, version) => version.clone().unwrap_or_default(),
        };
        let state = if state.is_empty() { state } else { state + "; " };
        lines.push(cut(&format!("  {:<13} {state}{}", tracer.name, tracer.about)));
    }
    lines
}

/// All of a document, by parts.
pub fn all(document: &Document) -> Vec<Vec<String>> {
    let mut parts = vec![head(document)];
    parts.extend(document.overhead.iter().map(overhead));
    parts.push(accuracy(&document.accuracy));
    parts.push(scale(&document.scale));
    parts.push(scan(&document.scan));
    parts.extend(document.regression.iter().map(regression));
    parts.push(goals(&document.goals));
    parts.retain(|lines| !lines.is_empty());
    parts
}

/// The heading over the tables of overhead.
const HEADING: [&str; 8] = ["rate", "of untraced", "p50", "p99", "CPU%", "MiB", "+kern", "is"];

fn columns(name: &str, values: &[String; 8]) -> String {
    let [throughput, range, p50, p99, cpu, resident, kernel, word] = values;
    let line = format!(
        "  {name:<13} {throughput:>6} {range:>13} {p50:>6} {p99:>6} {cpu:>4} {resident:>5} \
         {kernel:>5} {word}"
    );
    line.trim_end().to_owned()
}

/// One workload.
pub fn overhead(one: &Overhead) -> Vec<String> {
    let latency = one.latency_of.as_deref().map(|of| format!(" (latency of {of})"));
    let title = format!("{}{}", one.title(), latency.unwrap_or_default());
    let mut lines = vec![cut(&title), columns("", &HEADING.map(str::to_owned))];
    for row in &one.rows {
        match (&row.figures, &row.missing) {
            (Some(figures), _) => {
                lines.push(columns(&row.tracer, &values(&row.tracer, figures)));
                lines.extend(
                    figures.lost.filter(|lost| *lost > 0).map(|lost| {
                        format!("  {:<13} {lost} allocations were lost, as it says", "")
                    }),
                );
            }
            (None, why) => lines.push(cut(&format!(
                "  {:<13} {}",
                row.tracer,
                why.as_deref().unwrap_or("not measured")
            ))),
        }
    }
    lines.extend(smaller(one));
    lines
}

/// The peers that take less memory than leakd does.
fn smaller(one: &Overhead) -> Option<String> {
    let own = memory(one.figures(LEAKD)?)?;
    let is_smaller = |row: &&Row| {
        let bytes = row.figures.as_ref().and_then(memory);
        is_peer(&row.tracer) && bytes.is_some_and(|bytes| bytes < own)
    };
    let names: Vec<&str> =
        one.rows.iter().filter(is_smaller).map(|row| row.tracer.as_str()).collect();
    (!names.is_empty()).then(|| cut(&format!("  better in memory: {}", names.join(", "))))
}

/// All that is known of what a tracer takes.
fn memory(figures: &Figures) -> Option<f64> {
    Some(figures.resident_bytes? + figures.kernel_bytes.unwrap_or(0.0))
}

fn values(tracer: &str, figures: &Figures) -> [String; 8] {
    [
        number(figures.throughput.median),
        range(&figures.throughput),
        or_dash(figures.p50, |summary| factor(summary.median)),
        or_dash(figures.p99, |summary| factor(summary.median)),
        or_dash(figures.tracer_cpu_percent, |percent| format!("{percent:.0}")),
        or_dash(figures.resident_bytes, mebibytes),
        or_dash(figures.kernel_bytes, mebibytes),
        if is_peer(tracer) { word(figures) } else { String::new() },
    ]
}

/// What was found of a planted leak.
pub fn accuracy(all: &[Accuracy]) -> Vec<String> {
    if all.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![
        "A planted leak among honest traffic".to_owned(),
        "                 rank  of  blocks  bytes  frames right  called a leak".to_owned(),
    ];
    for one in all {
        if let Some(why) = &one.missing {
            lines.push(cut(&format!("  {:<13} {why}", one.tracer)));
            continue;
        }
        lines.push(
            format!(
                "  {:<13} {:>5} {:>3} {:>7} {:>6} {:>13} {:>14}",
                one.tracer,
                or_dash(one.rank, |rank| rank.to_string()),
                one.listed,
                or_dash(one.blocks, number),
                or_dash(one.bytes, number),
                format!("{} of {}", one.frames, one.frames_of),
                if one.called_leak { "yes" } else { "no" },
            )
            .trim_end()
            .to_owned(),
        );
    }
    lines
}

/// The heading over [`scale_line`].
pub fn scale_heading() -> Vec<String> {
    vec![
        "Outstanding blocks of 64 bytes, from 1000 call sites".to_owned(),
        "                   blocks filling  loop rate  B each  report, s   seen     lost"
            .to_owned(),
    ]
}

/// Many outstanding blocks.
pub fn scale_line(one: &Scale) -> String {
    if let Some(why) = &one.missing {
        return cut(&format!("  {:<13} {:>9} {why}", one.tracer, one.blocks));
    }
    format!(
        "  {:<13} {:>9} {:>7} {:>10} {:>7} {:>10} {:>6} {:>8}",
        one.tracer,
        one.blocks,
        or_dash(one.slower, factor),
        or_dash(one.throughput, number),
        or_dash(one.bytes_each, |bytes| format!("{bytes:.0}")),
        or_dash(one.report_seconds, number),
        or_dash(one.seen, number),
        or_dash(one.lost, |lost| lost.to_string()),
    )
}

/// All of them.
pub fn scale(all: &[Scale]) -> Vec<String> {
    if all.is_empty() {
        return Vec::new();
    }
    scale_heading().into_iter().chain(all.iter().map(scale_line)).collect()
}

/// What nothing leads to.
pub fn scan(all: &[Scan]) -> Vec<String> {
    if all.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![
        "Blocks that nothing leads to any more".to_owned(),
        "                   blocks B each seconds  GB/s  found  wrong  process meanwhile"
            .to_owned(),
    ];
    for one in all {
        if let Some(why) = &one.missing {
            lines.push(cut(&format!(
                "  {:<13} {:>10} {:>6} {why}",
                one.tracer, one.blocks, one.block_bytes
            )));
            continue;
        }
        let meanwhile = one
            .throughput
            .map_or_else(|| "had to end".to_owned(), |x| format!("{} of speed", number(x)));
        lines.push(format!(
            "  {:<13} {:>10} {:>6} {:>7} {:>5} {:>6} {:>6}  {meanwhile}",
            one.tracer,
            one.blocks,
            one.block_bytes,
            or_dash(one.seconds, number),
            or_dash(one.bytes_per_second, |speed| number(speed / 1e9)),
            or_dash(one.found, number),
            or_dash(one.wrong, |wrong| wrong.to_string()),
        ));
    }
    lines
}

/// Against what was committed.
pub fn regression(one: &Regression) -> Vec<String> {
    let mut lines = vec![format!("Against bench/baseline.json ({})", one.record)];
    lines.push(format!("  {:<54} {:>9} {:>9}", "", "recorded", "now"));
    for line in &one.lines {
        lines.push(compared(line));
    }
    lines.push("  Ratios are noisy and shown only; what is counted may not grow.".to_owned());
    let failed = one.lines.iter().filter(|line| line.failed).count();
    lines.push(match failed {
        0 => "  nothing has grown beyond what is allowed".to_owned(),
        count => format!("  {count} have grown beyond what is allowed"),
    });
    lines
}

fn compared(line: &Compared) -> String {
    let word = match (line.failed, line.recorded) {
        (true, _) => "GREW",
        (false, None) => "new",
        (false, Some(_)) => "",
    };
    // What is not noisy was counted.
    let show = |value: f64| if line.noisy { number(value) } else { format!("{value:.0}") };
    let recorded = or_dash(line.recorded, show);
    let text = format!("  {:<54} {recorded:>9} {:>9} {word}", line.name, show(line.now));
    text.trim_end().to_owned()
}

/// What was to be reached.
pub fn goals(goals: &[Goal]) -> Vec<String> {
    let mut lines = Vec::new();
    for goal in goals {
        let value =
            or_dash(goal.value, |value| format!("{} ({})", number(value.median), range(&value)));
        let outcome = goal.outcome().word();
        lines.push(format!("{}: {value}, goal >= {}:", goal.name, goal.at_least));
        lines.push(format!("  {outcome}"));
        lines.extend(wrapped(&goal.note));
    }
    lines
}

/// Text in lines of 78 columns, indented.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = " ".to_owned();
    for word in text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > 78 {
            lines.push(std::mem::replace(&mut line, " ".to_owned()));
        }
        line.push(' ');
        line.push_str(word);
    }
    if !line.trim().is_empty() {
        lines.push(line);
    }
    lines
}

/// What fits into 79 columns of a line. Versions and errors are other programs'
/// words.
fn cut(line: &str) -> String {
    let safe = leakd::terminal::safe(line);
    safe.chars().take(79).collect()
}
