//! The commands that ask the daemon and show what it says.

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::Path;

use super::daemon_args::{
    DetachArguments, ReportArguments, SetArguments, StatusArguments, TargetsArguments,
    WatchArguments,
};
use super::show::{Form, show_report, status_of};
use super::status as exit;
use crate::client::{Client, ClientError};
use crate::protocol::{
    Answer, Ask, Event, EventKind, KERNEL_PID, KernelMemoryView, KernelTracingView, MOST_SITES,
    ProcessView, Stage, Status, Verdict, Which,
};
use crate::report::text;
use crate::terminal::{bytes, count, duration, pad, rate_bytes, safe, safe_within};

/// Figures of a status that are older than this need to be told.
const STALE_MS: u64 = 3000;
/// Columns of a line.
const NAME: usize = 15;

/// Asks one thing.
fn ask(socket: &Path, question: Ask) -> Result<Answer, ClientError> {
    Client::connect(socket)?.ask(question)
}

fn strange(answer: &Answer) -> anyhow::Error {
    let text = serde_json::to_string(answer).unwrap_or_default();
    ClientError::Strange(text.chars().take(80).collect()).into()
}

/// Prints; `leakctl ... | head` has seen enough.
pub(super) fn print(text: &str) -> io::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn print_json(value: &impl serde::Serialize) -> anyhow::Result<u8> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))?;
    Ok(exit::CLEAN)
}

/// `leakctl status`
pub fn status(arguments: &StatusArguments) -> anyhow::Result<u8> {
    let status = match ask(&arguments.daemon.socket, Ask::Status {})? {
        Answer::Status(status) => status,
        other => return Err(strange(&other)),
    };
    if arguments.json {
        return print_json(&status);
    }
    print(&render_status(&status))?;
    Ok(exit::CLEAN)
}

fn render_status(status: &Status) -> String {
    let time = |milliseconds: u64| duration(milliseconds.saturating_mul(1_000_000));
    let own = &status.own;
    let watch = &status.watch;
    let tracing = &status.tracing;
    let governor = &status.governor;
    let mut lines = vec![
        format!(
            "leakd {} on {} (Linux {}, {} CPUs), pid {}, up {}",
            safe_within(&status.leakd, 16),
            safe_within(&status.host, 32),
            safe_within(&status.kernel, 32),
            status.cpus,
            own.pid,
            time(status.uptime_ms)
        ),
        format!("mode      {}", safe_within(&status.mode, 16)),
        format!(
            "itself    {} resident, {} of CPU time, {} descriptors",
            bytes(own.resident_bytes),
            time(own.cpu_ms),
            count(own.descriptors)
        ),
        format!(
            "watch     {} processes every {}, {} of CPU time a look; {} suspects",
            count(watch.processes as u64),
            time(watch.interval_ms),
            duration(watch.pass_us.saturating_mul(1000)),
            count(watch.suspects as u64)
        ),
    ];
    if watch.left_out > 0 {
        lines.push(format!("          {} processes left out", count(watch.left_out)));
    }
    kernel_memory(&status.kernel_memory, &mut lines);
    kernel_tracing(&status.kernel_tracing, &mut lines);
    match &tracing.error {
        Some(error) => lines.push(format!("tracing   NOT POSSIBLE: {}", safe(error))),
        None => lines.push(format!(
            "tracing   {} of at most {} targets; a malloc and free pair takes \
             {:.0} ns, {:.0} ns traced; a trap {:.0} ns, single-stepped {:.0} ns",
            tracing.targets,
            tracing.max_targets,
            tracing.bare_pair_ns.unwrap_or(0.0),
            tracing.traced_pair_ns.unwrap_or(0.0),
            tracing.emulated_trap_ns.unwrap_or(0.0),
            tracing.single_stepped_trap_ns.unwrap_or(0.0)
        )),
    }
    if tracing.lost > 0 {
        lines.push(format!("          {} allocations lost", count(tracing.lost)));
    }
    lines.push(format!(
        "governor  ~{:.2} % of all CPUs, at most {} %; each target at most {} % of its time; \
         {} steps down, {} up",
        governor.cost_machine_percent,
        governor.budget_machine_percent,
        governor.budget_target_percent,
        governor.steps_down,
        governor.steps_up
    ));
    let files: Vec<_> = status.config.files.iter().map(|file| safe(file)).collect();
    let files = if files.is_empty() { "no file: defaults".into() } else { files.join(", ") };
    lines.push(format!("config    {files}"));
    if !status.config.changed.is_empty() {
        lines.push(format!("          changed: {}", safe(&status.config.changed.join(", "))));
    }
    if let Some(error) = &status.config.error {
        lines.push(format!("          LAST RELOAD REFUSED: {}", safe(error)));
    }
    lines.push(format!("clients   {}", status.clients));
    if status.age_ms > STALE_MS {
        lines.push(format!("          BUSY: these figures are {} old", time(status.age_ms)));
    }
    wrapped(&lines)
}

/// The kernel's own memory, and what of it grows.
fn kernel_memory(kernel: &KernelMemoryView, lines: &mut Vec<String>) {
    let known = [
        ("slab", kernel.slab_unreclaimable_bytes),
        ("reclaimable", kernel.reclaimable_bytes),
        ("vmalloc", kernel.vmalloc_bytes),
        ("per CPU", kernel.per_cpu_bytes),
        ("page tables", kernel.page_table_bytes),
        ("stacks", kernel.stack_bytes),
    ];
    let known =
        known.iter().filter_map(|(name, taken)| Some(format!("{} {name}", bytes((*taken)?))));
    let known: Vec<_> = known.collect();
    if !known.is_empty() {
        lines.push(format!("kernel    {}", known.join(", ")));
    }
    for one in &kernel.growing {
        lines.push(format!(
            "          {} GROWS by {}{}",
            safe_within(&one.name, 40),
            rate_bytes(one.growth.bytes_per_second),
            if one.reclaimable { ", but is taken back when memory is short" } else { "" }
        ));
    }
    if let Some(error) = &kernel.caches_error {
        lines.push(format!("          no slab caches: {}", safe(error)));
    }
    if kernel.caches_left_out > 0 {
        let left_out = count(kernel.caches_left_out as u64);
        lines.push(format!("          {left_out} slab caches left out"));
    }
}

/// What of it is under trace.
fn kernel_tracing(kernel: &KernelTracingView, lines: &mut Vec<String>) {
    if let (Some(scope), Some(step)) = (&kernel.scope, &kernel.step) {
        lines.push(format!(
            "          traced: {} ({}), ~{:.2} % of all CPUs, at most {} %",
            safe_within(scope, 64),
            safe_within(step, 16),
            kernel.cost_percent,
            kernel.budget_percent
        ));
    } else if let Some(error) = &kernel.error {
        lines.push(format!("          NOT TRACED: {}", safe(error)));
    }
}

/// Lines of at most 80 columns; what goes on is indented.
fn wrapped(lines: &[String]) -> String {
    let mut text = String::new();
    for line in lines {
        let mut column = 0;
        for word in line.split_inclusive(' ') {
            let width = crate::terminal::columns(word.trim_end());
            if column > 10 && column + width > 80 {
                text.truncate(text.trim_end().len());
                text.push_str("\n          ");
                column = 10;
            }
            text.push_str(word);
            column += crate::terminal::columns(word);
        }
        text.push('\n');
    }
    text
}

/// `leakctl targets`
pub fn targets(arguments: &TargetsArguments) -> anyhow::Result<u8> {
    let question = Ask::Targets {
        pid: None,
        all: arguments.all,
        series: arguments.json,
        sort: arguments.sort.into(),
        limit: arguments.limit,
    };
    let targets = match ask(&arguments.daemon.socket, question)? {
        Answer::Targets(targets) => targets,
        other => return Err(strange(&other)),
    };
    if arguments.json {
        return print_json(&targets);
    }
    let mut text = String::new();
    if targets.processes.is_empty() {
        text.push_str("No process is suspected or was traced; --all lists all.\n");
    } else {
        text.push_str(
            "    PID NAME              MEMORY  GROWTH/m      HELD   COST STAGE   VERDICT\n",
        );
    }
    for process in &targets.processes {
        text.push_str(&row(process));
    }
    if targets.omitted > 0 {
        text.push_str(&format!("{} more\n", count(targets.omitted as u64)));
    }
    print(&text)?;
    Ok(exit::CLEAN)
}

fn row(process: &ProcessView) -> String {
    let growth = process.growth.bytes_per_second * 60.0;
    let growth = if growth.abs() < 1.0 { "-".to_owned() } else { rate_bytes(growth) };
    let growth = growth.trim_end_matches("/s").to_owned();
    let trace = process.trace.as_ref().filter(|trace| !trace.started.is_empty());
    let held = trace.map_or_else(
        || "-".to_owned(),
        |trace| {
            let tilde = if trace.estimated { "~" } else { "" };
            format!("{tilde}{}", bytes(trace.outstanding_bytes))
        },
    );
    let cost = process.cost_percent().map_or_else(|| "-".to_owned(), |cost| format!("{cost:.1} %"));
    let mut text = format!(
        "{:>7} {} {:>8} {:>9} {:>9} {:>6} {} {}\n",
        process.pid,
        pad(&safe_within(&process.comm, NAME), NAME),
        bytes(process.taken_bytes()),
        growth,
        held,
        cost,
        pad(stage(process), 7),
        verdict(process.verdict)
    );
    let place = trace
        .and_then(|trace| trace.evidence.as_ref())
        .and_then(|evidence| evidence.sites.first())
        .filter(|site| !site.place.is_empty());
    if let Some(site) = place {
        let place = safe(&site.place);
        text.push_str(&format!("        {}\n", crate::terminal::shorten_middle(&place, 72)));
        if !site.evidence.is_empty() {
            text.push_str(&wrapped(&[format!("          {}", safe(&site.evidence))]));
        }
    }
    if let Some(out) = &process.out_of_memory {
        text.push_str(&wrapped(&[format!("        {}", text::out_of_memory(out))]));
    }
    if let Some(error) = process.trace.as_ref().and_then(|trace| trace.error.as_ref()) {
        text.push_str(&wrapped(&[format!("          {}", safe(error))]));
    }
    text
}

fn stage(process: &ProcessView) -> &'static str {
    match process.stage {
        _ if !process.running => "ended",
        Stage::Watched => "watched",
        Stage::Suspect => "suspect",
        Stage::Traced => "traced",
        Stage::Resting => "resting",
        Stage::Untraceable => "cannot",
        Stage::Excluded => "left",
    }
}

/// A verdict in a word, loud where somebody should look.
fn verdict(verdict: Verdict) -> Cow<'static, str> {
    match verdict {
        Verdict::Growing | Verdict::Leak => verdict.word().to_uppercase().into(),
        other => other.word().into(),
    }
}

/// `leakctl report`
pub fn report(arguments: &ReportArguments) -> anyhow::Result<u8> {
    let pid = arguments.pid.or(arguments.kernel.then_some(KERNEL_PID));
    let all = arguments.all || (pid.is_none() && arguments.unit.is_none());
    let which = Which { pid, start_time: None, unit: arguments.unit.clone(), all };
    let question = Ask::Report {
        which,
        top: Some(arguments.output.sites().unwrap_or(MOST_SITES)),
        min_age_ms: arguments.min_age.map(|age| age.as_millis() as u64),
    };
    let report = match ask(&arguments.daemon.socket, question)? {
        Answer::Report { report } => report,
        other => return Err(strange(&other)),
    };
    if report.targets.is_empty() && !arguments.output.json {
        print("Nothing is or was under trace.\n")?;
        return Ok(exit::CLEAN);
    }
    show_report(&report, &arguments.output, Form::Sites)?;
    Ok(status_of(&report))
}

/// `leakctl watch`
pub fn watch(arguments: &WatchArguments) -> anyhow::Result<u8> {
    let mut client = Client::connect(&arguments.daemon.socket)?;
    let mut answer = client.ask(Ask::Watch {})?;
    loop {
        let events = match answer {
            Answer::Watching(welcome) => welcome.standing,
            Answer::Event { event } => vec![event],
            Answer::Missed { count } => {
                eprintln!("leakctl: {count} events were missed");
                Vec::new()
            }
            _ => Vec::new(),
        };
        for event in events {
            if !arguments.json && !arguments.verbose && event.kind != EventKind::Verdict {
                continue;
            }
            let line = if arguments.json {
                format!("{}\n", serde_json::to_string(&event)?)
            } else {
                line(&event)
            };
            let mut stdout = io::stdout().lock();
            match stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Ok(exit::CLEAN);
                }
                other => other?,
            }
        }
        answer = client.next_answer()?;
    }
}

fn line(event: &Event) -> String {
    let time = event.time.get(11..19).unwrap_or("");
    format!("{} {} {}\n", safe(time), pad(&verdict(event.verdict), 12), safe(&event.message))
}

/// `leakctl detach`
pub fn detach(arguments: &DetachArguments) -> anyhow::Result<u8> {
    say_done(ask(&arguments.daemon.socket, Ask::Detach { pid: arguments.pid, start_time: None })?)
}

/// `leakctl set`
pub fn set(arguments: SetArguments) -> anyhow::Result<u8> {
    let (change, socket) = arguments.change();
    say_done(ask(&socket, Ask::Set(change))?)
}

fn say_done(answer: Answer) -> anyhow::Result<u8> {
    match answer {
        Answer::Done(done) => {
            print(&format!("{}\n", safe(&done.message)))?;
            Ok(exit::CLEAN)
        }
        other => Err(strange(&other)),
    }
}
