//! All call sites at a glance, one line each.

use super::{Page, name, stack};
use crate::report::model::Site;
use crate::terminal::{Role, bytes, columns, count, pad, percent, rate_bytes, shorten_middle};
use crate::verdict::Verdict;

/// Lines of the table at most.
const LINES: usize = 10;
/// Columns that names need at least.
const NAMES: usize = 16;

/// Adds the table: who, how much, how fast.
pub fn push(page: &mut Page, sites: &[&Site], tilde: &str) {
    let shown = &sites[..sites.len().min(LINES)];
    let rows: Vec<[String; 6]> = shown
        .iter()
        .enumerate()
        .map(|(index, site)| {
            [
                format!("#{}", index + 1),
                format!("{tilde}{}", bytes(site.outstanding_bytes)),
                format!("{tilde}{}", count(site.outstanding_blocks)),
                format!("{tilde}{}", rate_bytes(site.growth_bytes_per_second)),
                percent(site.surviving_share),
                match site.verdict.word {
                    Verdict::Undetermined => "-".to_owned(),
                    other => other.word().to_owned(),
                },
            ]
        })
        .collect();
    let titles = ["", "held", "blocks", "growth", "survive", "verdict"];
    let widths: Vec<usize> = (0..titles.len())
        .map(|column| {
            let cells = rows.iter().map(|row| columns(&row[column]));
            cells.max().unwrap_or(0).max(titles[column].len())
        })
        .collect();
    // A table that leaves no room for names helps nobody: the sites follow.
    let room = page.width.saturating_sub(widths.iter().map(|width| width + 2).sum());
    if room < NAMES {
        return;
    }
    page.blank();
    let right = |cell: &str, width: usize| format!("{}{cell}", pad("", width - columns(cell)));
    let mut title = String::new();
    for (cell, width) in titles.iter().zip(&widths) {
        title.push_str(&right(cell, *width));
        title.push_str("  ");
    }
    page.line(Role::Dim, &format!("{title}allocated by"));
    for (row, site) in rows.iter().zip(shown) {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let cell = right(cell, *width);
            let role = if column == 1 { Role::Leak } else { Role::Dim };
            line.push_str(&page.style.paint(role, &cell));
            line.push_str("  ");
        }
        line.push_str(&page.style.paint(Role::Culprit, &who(site, room)));
        page.raw(&line);
    }
    if sites.len() > shown.len() {
        page.line(Role::Dim, &format!("... {} more", sites.len() - shown.len()));
    }
}

/// The function to look at first, and its line if there is room.
fn who(site: &Site, room: usize) -> String {
    let Some(index) = name::culprit(&site.stack) else {
        return shorten_middle("(call stack not seen)", room).into_owned();
    };
    let frame = &site.stack[index];
    let function = stack::function(frame);
    let source = stack::source(frame, room / 2);
    let with_source = columns(&source) + 2;
    if source.is_empty() || room < with_source + 12 {
        name::shorten(&function, room).into_owned()
    } else {
        format!("{}  {source}", name::shorten(&function, room - with_source))
    }
}
