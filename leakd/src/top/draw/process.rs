//! The list of processes.

use ratatui::buffer::Buffer;
use ratatui::style::Style;

use super::FIRST_ROW;
use super::table::{self, Cell, Column};
use super::theme::Theme;
use crate::protocol::{ProcessView, Stage, Verdict};
use crate::terminal::{Role, bytes, safe};
use crate::top::state::State;

/// From this width on, what is done with a process has a column.
const WITH_STAGE: u16 = 96;
/// From this width on, the unit has one.
const WITH_UNIT: u16 = 116;

pub fn columns(width: u16) -> Vec<Column> {
    let mut columns = vec![Column::number("PID", 7, 5), Column::text("NAME", 0)];
    if width >= WITH_UNIT {
        columns.push(Column::text("UNIT", 20));
    }
    if width >= WITH_STAGE {
        columns.push(Column::text("STAGE", 11));
    }
    columns.extend([
        Column::text("VERDICT", 12),
        Column::number("MEMORY", 9, 4),
        Column::number("GROWTH/MIN", 11, 1),
        Column::number("HELD", 10, 2),
        Column::number("COST", 8, 3),
    ]);
    columns
}

pub fn draw(state: &State, theme: Theme, buffer: &mut Buffer) {
    let width = buffer.area.width;
    let columns = columns(width);
    if state.process_list.is_empty() {
        let text = match state.processes.len() {
            0 => "no figures yet",
            _ if !state.filter.text().is_empty() => "no process has the text of the filter",
            _ => "nothing grows or was traced: t shows all processes",
        };
        table::put(buffer, (0, FIRST_ROW), width, false, text, theme.style(Role::Dim));
    }
    for (line, (entry, here)) in state.process_list.visible().enumerate() {
        let Some(process) = state.processes.get(entry as usize) else { continue };
        let row = FIRST_ROW + line as u16;
        table::write(buffer, row, &columns, &cells(process, width, theme));
        if here {
            buffer.set_style(ratatui::layout::Rect::new(0, row, width, 1), theme.reversed());
        }
    }
}

fn cells(process: &ProcessView, width: u16, theme: Theme) -> Vec<Cell<'_>> {
    let plain = if process.running { Style::new() } else { theme.style(Role::Dim) };
    let mut cells = vec![(process.pid.to_string().into(), plain), (safe(&process.comm), plain)];
    if width >= WITH_UNIT {
        cells.push((safe(process.unit.as_deref().unwrap_or("-")), plain));
    }
    if width >= WITH_STAGE {
        cells.push((stage(process).into(), plain));
    }
    let (verdict, role) = verdict(process);
    cells.push((verdict.into(), role.map_or(plain, |role| theme.style(role))));
    if process.running {
        cells.push((bytes(process.taken_bytes()).into(), plain));
        cells.push((growth(process.growth.bytes_per_second).into(), plain));
    } else {
        cells.extend([("-".into(), plain), ("-".into(), plain)]);
    }
    cells.push((held_text(process).into(), plain));
    cells.push((cost_text(process).into(), plain));
    cells
}

/// What is done with a process, in a word.
pub fn stage(process: &ProcessView) -> &'static str {
    match process.stage {
        _ if !process.running => "ended",
        Stage::Watched => "watched",
        Stage::Suspect => "suspect",
        Stage::Traced => "traced",
        Stage::Resting => "resting",
        Stage::Untraceable => "untraceable",
        Stage::Excluded => "left alone",
    }
}

/// What is held of a process, in a word, and how that looks.
pub fn verdict(process: &ProcessView) -> (&'static str, Option<Role>) {
    let role = match process.verdict {
        Verdict::Undetermined => Some(Role::Dim),
        Verdict::WarmUp | Verdict::CacheLike => None,
        Verdict::Stable => Some(Role::Good),
        Verdict::Growing => Some(Role::Warning),
        Verdict::Leak => Some(Role::Leak),
    };
    (process.verdict.word(), role)
}

/// Bytes a second, by the minute: the same unit on all lines.
pub fn growth(bytes_per_second: f64) -> String {
    let a_minute = bytes_per_second * 60.0;
    match a_minute {
        _ if !a_minute.is_finite() || a_minute.abs() < 0.5 => "0".to_owned(),
        _ if a_minute < 0.0 => format!("-{}", bytes(-a_minute as u64)),
        _ => format!("+{}", bytes(a_minute as u64)),
    }
}

fn held_text(process: &ProcessView) -> String {
    match &process.trace {
        Some(trace) if trace.error.is_some() && !trace.active => "-".to_owned(),
        Some(trace) => {
            format!(
                "{}{}",
                if trace.estimated { "~" } else { "" },
                bytes(process.outstanding_bytes())
            )
        }
        None => "-".to_owned(),
    }
}

fn cost_text(process: &ProcessView) -> String {
    match process.cost_percent() {
        Some(cost) if cost >= 0.05 => format!("{cost:.1} %"),
        Some(cost) if cost > 0.0 => "< 0.1 %".to_owned(),
        Some(_) => "0 %".to_owned(),
        None => "-".to_owned(),
    }
}
