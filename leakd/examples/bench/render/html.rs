//! A page that needs nothing else: no script, no font, no picture from elsewhere.

use std::fmt::Write;

use super::{chart, factor, mebibytes, number, or_dash, range, table, word};
use crate::model::{Document, Outcome, Overhead, is_peer};

const STYLE: &str = include_str!("style.css");

/// The page.
pub fn page(document: &Document) -> String {
    let mut body = String::new();
    let title = "leakd beside other tools: what tracing costs and finds";
    let _ = write!(
        body,
        "<h1>{title}</h1><p>{}. {} rounds, {}, {}; load average {:.1} before, {:.1} after.</p>",
        escape(&document.machine.line()),
        document.rounds,
        escape(&document.started),
        duration(document.seconds),
        document.load.0,
        document.load.1
    );
    body += "<p>Every figure is a ratio to an untraced measurement that was taken right beside \
             it; times of one machine at one moment are not shown.</p>";
    goals(&mut body, document);
    tracers(&mut body, document);
    if !document.overhead.is_empty() {
        body += "<h2>What tracing costs</h2><p>Throughput over that of the untraced: further to \
                 the right is better. The dot is the median, the line the range of the rounds. \
                 The floor is not a tool: empty programs where leakd has its own. The word says \
                 whether another tool is slower or better than leakd here.</p>";
    }
    for one in &document.overhead {
        overhead(&mut body, one);
    }
    for lines in [
        table::accuracy(&document.accuracy),
        table::scale(&document.scale),
        table::scan(&document.scan),
    ] {
        section(&mut body, &lines);
    }
    if let Some(regression) = &document.regression {
        section(&mut body, &table::regression(regression));
    }
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
         <style>{STYLE}</style><main>{body}</main></html>\n"
    )
}

/// A part as the terminal has it: the first line is its title.
fn section(body: &mut String, lines: &[String]) {
    let Some((title, rest)) = lines.split_first() else { return };
    let _ = write!(
        body,
        "<h2>{}</h2><div class=\"wide\"><pre>{}</pre></div>",
        escape(title),
        escape(&rest.join("\n"))
    );
}

fn goals(body: &mut String, document: &Document) {
    if document.goals.is_empty() {
        return;
    }
    *body += "<h2>Goals</h2><ul>";
    for goal in &document.goals {
        let value =
            or_dash(goal.value, |value| format!("{} ({})", number(value.median), range(&value)));
        let outcome = goal.outcome();
        let class = match outcome {
            Outcome::Met => "met",
            Outcome::Missed | Outcome::OutOfReach => "missed",
            Outcome::NotMeasured => "unknown",
        };
        let _ = write!(
            body,
            "<li>{}: <b>{value}</b>, goal at least {}: <b class=\"{class}\">{}</b>. {}</li>",
            escape(&goal.name),
            goal.at_least,
            outcome.word(),
            escape(&goal.note)
        );
    }
    *body += "</ul>";
}

fn tracers(body: &mut String, document: &Document) {
    *body += "<h2>Tracers</h2><div class=\"wide\"><table><tr><th>name<th>what it is<th>version";
    for tracer in &document.tracers {
        let version = match &tracer.missing {
            Some(why) => format!("missing: {why}"),
            None => tracer.version.clone().unwrap_or_default(),
        };
        let _ = write!(
            body,
            "<tr><td>{}<td>{}<td>{}",
            escape(&tracer.name),
            escape(&tracer.about),
            escape(&version)
        );
    }
    *body += "</table></div>";
}

fn overhead(body: &mut String, one: &Overhead) {
    let latency = one.latency_of.as_deref().map(|of| format!("; latency of {of}"));
    let _ = write!(
        body,
        "<section><h3>{} <small>{} a second{}</small></h3>{}",
        escape(&one.title()),
        escape(&one.unit),
        escape(&latency.unwrap_or_default()),
        chart::throughput(one)
    );
    *body += "<details><summary>All figures</summary><div class=\"wide\"><table><tr><th>tracer\
              <th>throughput<th>lowest-highest<th>p50<th>p99<th>its CPU, %<th>its memory, MiB\
              <th>kernel, MiB<th>lost<th>against leakd";
    for row in &one.rows {
        let _ = write!(body, "<tr><td>{}", escape(&row.tracer));
        let Some(figures) = &row.figures else {
            let why = row.missing.as_deref().unwrap_or("not measured");
            let _ = write!(body, "<td colspan=\"9\">{}", escape(why));
            continue;
        };
        let compared = if is_peer(&row.tracer) { word(figures) } else { String::new() };
        for cell in [
            number(figures.throughput.median),
            range(&figures.throughput),
            or_dash(figures.p50, |summary| factor(summary.median)),
            or_dash(figures.p99, |summary| factor(summary.median)),
            or_dash(figures.tracer_cpu_percent, |percent| format!("{percent:.0}")),
            or_dash(figures.resident_bytes, mebibytes),
            or_dash(figures.kernel_bytes, mebibytes),
            or_dash(figures.lost, |lost| lost.to_string()),
            compared,
        ] {
            let _ = write!(body, "<td class=\"number\">{cell}");
        }
    }
    *body += "</table></div></details></section>";
}

/// "4 min 10 s".
pub fn duration(seconds: f64) -> String {
    format!("{} min {} s", (seconds / 60.0) as u64, (seconds % 60.0) as u64)
}

/// Text as it stands in HTML.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for sign in text.chars() {
        match sign {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            _ => escaped.push(sign),
        }
    }
    escaped
}
