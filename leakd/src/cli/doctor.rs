//! `leakctl doctor`

use serde::Serialize;

use super::args::DoctorArguments;
use super::doctor_kernel;
use super::doctor_stacks::{self, ProcessStacks};
use super::{start_engine, status};
use crate::bpf::features::ProbeMethod;
use crate::engine::Settings;
use crate::preflight::Facts;
use crate::terminal::{Role, Style, pad};

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    feature: &'static str,
    /// `yes`, `no` or a value.
    found: String,
    /// Whether leakd can do its work all the same.
    ok: bool,
    /// What leakd does with it, or instead.
    means: String,
}

#[derive(Debug, Serialize)]
struct Diagnosis {
    schema: &'static str,
    kernel: String,
    can_trace: bool,
    rows: Vec<Row>,
    /// How far the stacks of the processes can be followed that were asked for.
    processes: Vec<ProcessStacks>,
}

/// Looks at the machine and sends the canary.
pub async fn doctor(arguments: &DoctorArguments) -> anyhow::Result<u8> {
    let facts = Facts::gather();
    let mut rows = basics(&facts);
    let mut can_trace = false;
    let mut processes = Vec::new();
    match facts.check() {
        Err(error) => rows.push(row("tracing", "no", false, error.to_string())),
        Ok(()) => match start_engine(Settings::default()) {
            Err(error) => rows.push(row("canary", "failed", false, super::one_line(&error))),
            Ok((engine, canary)) => {
                can_trace = true;
                rows.extend(methods(engine.method()));
                rows.push(row(
                    "canary",
                    "passed",
                    true,
                    format!(
                        "a malloc and free pair takes {:.0} ns, {:.0} ns under trace",
                        canary.bare_pair_ns, canary.traced_pair_ns
                    ),
                ));
                rows.push(row(
                    "price of a trap",
                    &format!("{:.0} ns", canary.emulated_trap_ns),
                    true,
                    format!(
                        "{:.0} ns where the kernel must single-step the probed instruction",
                        canary.single_stepped_trap_ns
                    ),
                ));
                processes = doctor_stacks::look(engine, arguments).await?;
            }
        },
    }
    rows.extend(doctor_kernel::rows(&facts));
    let diagnosis =
        Diagnosis { schema: "leakd.doctor/1", kernel: facts.release, can_trace, rows, processes };
    if arguments.json {
        let text = serde_json::to_string_pretty(&diagnosis)?;
        print(&format!("{text}\n"))?;
    } else {
        print(&render(&diagnosis))?;
    }
    Ok(if can_trace { status::CLEAN } else { status::TROUBLE })
}

pub(super) fn row(feature: &'static str, found: &str, ok: bool, means: impl Into<String>) -> Row {
    Row { feature, found: found.to_owned(), ok, means: means.into() }
}

fn basics(facts: &Facts) -> Vec<Row> {
    let missing = facts.missing_capabilities();
    let yes = |found: bool| if found { "yes" } else { "no" };
    let lockdown = if facts.lockdown.is_empty() { "none" } else { &facts.lockdown };
    vec![
        row(
            "capabilities",
            yes(missing.is_empty()),
            missing.is_empty(),
            if missing.is_empty() {
                "may trace any process".to_owned()
            } else {
                format!("missing {}: run with sudo", missing.join(", "))
            },
        ),
        row("BTF", yes(facts.btf), facts.btf, "kernel types; needed to load the programs"),
        row("uprobes", yes(facts.uprobes), facts.uprobes, "probes on allocator functions"),
        row(
            "lockdown",
            lockdown,
            lockdown != "confidentiality",
            "`confidentiality` would forbid tracing",
        ),
    ]
}

fn methods(method: ProbeMethod) -> Vec<Row> {
    let session = method == ProbeMethod::Session;
    let multi = session || method == ProbeMethod::Multi;
    let yes = |found: bool| if found { "yes" } else { "no" };
    vec![
        row(
            "uprobe sessions",
            yes(session),
            true,
            if session {
                "one trap an entry; none at the return of what is not sampled"
            } else {
                "before 6.13: entry and return probes instead; operator new of jemalloc or \
                 tcmalloc, asked for more than any machine has, aborts its program"
            },
        ),
        row(
            "uprobe_multi",
            yes(multi),
            true,
            if multi {
                "all probes of an object in one link"
            } else {
                "before 6.6: a perf event a probe instead, slow to detach (0.1 s each)"
            },
        ),
    ]
}

fn render(diagnosis: &Diagnosis) -> String {
    use std::fmt::Write;
    let style = Style::of(&std::io::stdout());
    let mut text = format!("kernel {}\n", crate::terminal::safe(&diagnosis.kernel));
    for row in &diagnosis.rows {
        let role = if row.ok { Role::Good } else { Role::Leak };
        let found = pad(&row.found, 10);
        let mut means = row.means.as_str();
        let _ = write!(text, "  {} {} ", pad(row.feature, 16), style.paint(role, &found));
        // 80 columns less what stands before.
        const ROOM: usize = 50;
        let mut first = true;
        while !means.is_empty() {
            let cut = if means.len() <= ROOM {
                means.len()
            } else {
                means[..=floor_boundary(means, ROOM)].rfind(' ').unwrap_or(means.len())
            };
            if !first {
                let _ = write!(text, "\n{:30}", "");
            }
            let _ = write!(text, "{}", crate::terminal::safe(&means[..cut]));
            means = means[cut..].trim_start();
            first = false;
        }
        text.push('\n');
    }
    text.push_str(if diagnosis.can_trace {
        "leakd can trace on this machine.\n"
    } else {
        "leakd cannot trace on this machine.\n"
    });
    for process in &diagnosis.processes {
        text.push_str(&process.text());
    }
    text
}

/// The last byte at or before `at` that begins a character.
fn floor_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len() - 1)).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

fn print(text: &str) -> std::io::Result<()> {
    use std::io::Write;
    std::io::stdout().lock().write_all(text.as_bytes())
}
