//! The first two lines: what the page is about, the governor, what was lost.

use std::time::Duration;

use ratatui::buffer::Buffer;

use super::table::put;
use super::theme::Theme;
use crate::protocol::{ProcessView, Status};
use crate::terminal::{Role, bytes, columns, count, duration, percent, safe, safe_within};
use crate::top::state::{Page, State};

/// After so long without an answer, the figures are old.
const OLD: Duration = Duration::from_secs(10);

pub fn draw(state: &State, theme: Theme, buffer: &mut Buffer) {
    let width = buffer.area.width;
    let (alarm, role) = alarm(state);
    let room = width.saturating_sub(columns(&alarm) as u16);
    put(buffer, (0, 0), room.saturating_sub(1), false, &title(state), theme.style(Role::Heading));
    put(buffer, (room, 0), width - room, false, &alarm, theme.style(role));
    let (text, role) = governor(state, theme);
    let (lost, alarming) = lost_text(state);
    let room = width.saturating_sub(columns(&lost) as u16);
    put(buffer, (0, 1), room.saturating_sub(1), false, &text, theme.style(role));
    put(buffer, (room, 1), width - room, false, &lost, theme.style(alarming));
}

/// What stands at the right of the first line.
fn alarm(state: &State) -> (String, Role) {
    let age = state.heard.map(|heard| heard.elapsed());
    if state.lost.is_some() {
        let text = match age {
            Some(age) => format!("NO ANSWER for {}", seconds(age)),
            None => "NO ANSWER".to_owned(),
        };
        return (text, Role::Leak);
    }
    if state.paused {
        return ("PAUSED (p goes on)".to_owned(), Role::Warning);
    }
    match age {
        None => ("asking ...".to_owned(), Role::Dim),
        Some(age) if age > OLD => (format!("{} old", seconds(age)), Role::Warning),
        Some(_) => (kernel_grows(state).unwrap_or_default(), Role::Warning),
    }
}

/// That the kernel's own memory grows.
fn kernel_grows(state: &State) -> Option<String> {
    let mut suspects = state.status.as_ref()?.kernel_memory.suspects();
    let first = suspects.next()?;
    let more = suspects.count();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Some(format!("KERNEL GROWS: {}{more}", safe_within(&first.name, 24)))
}

fn seconds(age: Duration) -> String {
    duration(age.as_secs() * 1_000_000_000)
}

fn title(state: &State) -> String {
    match state.page {
        Page::Processes => match &state.status {
            Some(status) => machine(state, status),
            None => "leakd".to_owned(),
        },
        Page::Sites => target(state),
        Page::Stack => site(state),
    }
}

fn machine(state: &State, status: &Status) -> String {
    let watch = &status.watch;
    let shown = state.process_list.len();
    let mut text = format!(
        "leakd on {}: {} processes, {}, {} of {} traced, mode {}",
        safe(&status.host),
        count(watch.processes as u64),
        match watch.suspects {
            1 => "1 grows".to_owned(),
            several => format!("{several} grow"),
        },
        status.tracing.targets,
        status.tracing.max_targets,
        safe(&status.mode),
    );
    if shown < state.processes.len() {
        text += &format!(" ({shown} shown)");
    }
    if state.omitted > 0 {
        text += &format!(" ({} more left out)", state.omitted);
    }
    text
}

fn who(state: &State) -> String {
    match (state.owner(), state.whose) {
        (Some(process), _) => format!("{} (pid {})", safe(&process.comm), process.pid),
        (None, Some((pid, _))) => format!("process {pid}, which has ended"),
        (None, None) => String::new(),
    }
}

fn target(state: &State) -> String {
    let who = who(state);
    let Some(Ok(target)) = &state.target else { return who };
    let tilde = if target.outstanding.estimated { "~" } else { "" };
    format!(
        "{who}: {tilde}{} in {tilde}{} blocks, {} of {} sites, {}",
        bytes(target.outstanding.bytes),
        count(target.outstanding.blocks),
        state.site_list.len(),
        target.sites.len() as u64 + target.omitted.sites,
        duration(target.duration_ns),
    )
}

fn site(state: &State) -> String {
    let who = who(state);
    let Some(site) = &state.site else { return who };
    format!("{who}, call site {}", safe(&site.id))
}

/// The governor's state: of the machine, or of the process whose page it is.
fn governor(state: &State, theme: Theme) -> (String, Role) {
    if let Some(error) = &state.lost {
        return (safe(error).into_owned(), Role::Leak);
    }
    let Some(status) = &state.status else { return (String::new(), Role::Dim) };
    if let Some(error) = &status.tracing.error {
        return (format!("CANNOT TRACE: {}", safe(error)), Role::Leak);
    }
    (own(state).map_or_else(|| of_machine(status, theme), |one| of_process(one, theme)), Role::Dim)
}

/// The process whose page it is.
fn own(state: &State) -> Option<&ProcessView> {
    state.owner().filter(|_| state.page != Page::Processes)
}

/// Allocations that were lost: always there, at the right.
fn lost_text(state: &State) -> (String, Role) {
    let Some(status) = &state.status else { return (String::new(), Role::Dim) };
    let of_process = |one: &ProcessView| one.trace.as_ref().map_or(0, |trace| trace.lost);
    let lost = own(state).map_or(status.tracing.lost, of_process);
    let role = if lost > 0 { Role::Warning } else { Role::Dim };
    (format!("lost {}", count(lost)), role)
}

fn of_machine(status: &Status, theme: Theme) -> String {
    let governor = &status.governor;
    let dot = theme.dot();
    format!(
        "governor: all costs {} of {}, each at most {}{dot}steps: {} down, {} up",
        percent(governor.cost_machine_percent / 100.0),
        whole(governor.budget_machine_percent),
        whole(governor.budget_target_percent),
        count(governor.steps_down),
        count(governor.steps_up),
    )
}

fn of_process(process: &ProcessView, theme: Theme) -> String {
    let Some(trace) = &process.trace else { return "never under trace: a attaches".to_owned() };
    let dot = theme.dot();
    let governor = &trace.governor;
    match process.cost_percent() {
        Some(cost) => format!(
            "governor: {}{dot}{} of {}{dot}{} traps/s{dot}{}",
            safe(&governor.step),
            percent(cost / 100.0),
            whole(governor.budget_percent),
            count(governor.traps_per_second.max(0.0) as u64),
            sampling(process),
        ),
        None => format!(
            "not under trace now{dot}held {} at its end",
            bytes(process.outstanding_bytes())
        ),
    }
}

/// How much of a target is seen.
pub fn sampling(process: &ProcessView) -> String {
    let Some(trace) = &process.trace else { return String::new() };
    let governor = &trace.governor;
    match governor.sample_bytes {
        _ if governor.open_percent < 99.95 => {
            format!("open {} of the time", percent(governor.open_percent / 100.0))
        }
        0 => "every block".to_owned(),
        sample => format!("a sample each {}", bytes(sample)),
    }
}

/// A percentage as it was set: `5 %`, `2.5 %`.
fn whole(percent: f64) -> String {
    format!("{} %", (percent * 100.0).round() / 100.0)
}
