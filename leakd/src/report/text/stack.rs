//! A call stack, one frame a line.

use std::borrow::Cow;

use super::{Page, name};
use crate::report::model::{Frame, StackEnd};
use crate::terminal::{Role, columns, pad, safe_within, shorten_middle, shorten_start};

/// Stacks of more frames than this are cut ...
const SHOWN: usize = 12;
/// ... to this many innermost ...
const INNERMOST: usize = 8;
/// ... and this many outermost frames.
const OUTERMOST: usize = 3;
/// Frames of libraries in front of the one to look at that are always shown.
const LEADING: usize = 2;

const INDENT: &str = "    ";
const MARK_INLINED: &str = " (inlined)";

/// Adds a stack and, where it is not complete, why.
pub fn push(page: &mut Page, stack: &[Frame], end: StackEnd) {
    let culprit = name::culprit(stack);
    let shown = Shown::of(stack.len(), culprit.unwrap_or(0), page.all_frames);
    let visible = stack.iter().enumerate().filter(|(index, _)| shown.has(*index));
    let widest = visible.map(|(_, frame)| columns(&place(frame, page.width))).max().unwrap_or(0);
    // Functions get the larger part of a line.
    let room = page.width.saturating_sub(INDENT.len() + 2);
    let place_room = widest.min(room * 2 / 5);
    let mut hidden = 0;
    for (index, frame) in stack.iter().enumerate() {
        if !shown.has(index) {
            hidden += 1;
            continue;
        }
        if hidden > 0 {
            let what = if culprit == Some(index) { "frames of libraries" } else { "more frames" };
            page.line(Role::Dim, &format!("{INDENT}... {hidden} {what}"));
            hidden = 0;
        }
        push_frame(page, frame, culprit == Some(index), room - place_room, place_room);
    }
    if let Some(reason) = incomplete(end) {
        page.line(Role::Warning, &format!("{INDENT}? {reason}"));
    }
}

/// Which frames of a deep stack are shown: the first ones, those from the
/// culprit on, and the outermost ones.
struct Shown {
    count: usize,
    leading: usize,
    culprit: usize,
    from_culprit: usize,
}

impl Shown {
    fn of(count: usize, culprit: usize, all: bool) -> Self {
        if all || count <= SHOWN {
            return Self { count, leading: count, culprit: 0, from_culprit: count };
        }
        // A gap of one frame would take as much room as the frame.
        let leading = if culprit > LEADING + 1 { LEADING } else { culprit };
        Self { count, leading, culprit, from_culprit: INNERMOST - leading }
    }

    fn has(&self, index: usize) -> bool {
        index < self.leading
            || (self.culprit..self.culprit + self.from_culprit).contains(&index)
            || index + OUTERMOST >= self.count
    }
}

fn push_frame(page: &mut Page, frame: &Frame, culprit: bool, room: usize, place_room: usize) {
    let mark = if frame.inlined { MARK_INLINED } else { "" };
    let function = function(frame);
    let short = name::shorten(&function, room - mark.len());
    let place = place(frame, page.width);
    let place = shorten_place(&place, place_room);
    let role = if culprit {
        Some(Role::Culprit)
    } else if frame.function.is_none() || name::is_library(frame) {
        Some(Role::Dim)
    } else {
        None
    };
    let padding = pad("", (room + 2).saturating_sub(columns(&short) + mark.len()));
    let painted = match role {
        Some(role) => page.style.paint(role, &short),
        None => Cow::Borrowed(&*short),
    };
    let line = format!(
        "{INDENT}{painted}{}{padding}{}",
        page.style.paint(Role::Dim, mark),
        page.style.paint(if culprit { Role::Place } else { Role::Dim }, &place)
    );
    page.raw(&line);
}

/// The function, or the address where it has no name.
pub fn function(frame: &Frame) -> Cow<'_, str> {
    match &frame.function {
        Some(function) => safe_within(function, 512),
        None => safe_within(&frame.address, 32),
    }
}

/// Where a frame is: `file.c:12 module`, or `module+0x1234` without a line.
fn place(frame: &Frame, width: usize) -> String {
    let module = frame.module.as_deref().map(|module| safe_within(base_name(module), width));
    match (&frame.file, module, frame.offset) {
        (Some(_), Some(module), _) => format!("{} {module}", source(frame, width)),
        (Some(_), None, _) => source(frame, width),
        (None, Some(module), Some(offset)) if frame.function.is_none() => {
            format!("{module}+{offset:#x}")
        }
        (None, Some(module), _) => module.into_owned(),
        (None, None, _) => "?".to_owned(),
    }
}

/// File and line of a frame; empty if there is none.
pub fn source(frame: &Frame, width: usize) -> String {
    let Some(file) = frame.file.as_deref() else { return String::new() };
    let file = safe_within(base_name(file), width);
    match frame.line {
        Some(line) => format!("{file}:{line}"),
        None => file.into_owned(),
    }
}

/// Shortens a place so that the line number survives: the module goes first.
fn shorten_place(place: &str, room: usize) -> Cow<'_, str> {
    if columns(place) <= room {
        return Cow::Borrowed(place);
    }
    match place.rsplit_once(' ') {
        Some((source, module)) if columns(source) + 6 <= room => {
            Cow::Owned(format!("{source} {}", shorten_middle(module, room - columns(source) - 1)))
        }
        Some((source, _)) => Cow::Owned(shorten_start(source, room).into_owned()),
        None => shorten_middle(place, room),
    }
}

/// The last part of a path.
pub fn base_name(path: &str) -> &str {
    match path.trim_end_matches('/').rsplit_once('/') {
        Some((_, name)) => name,
        None => path,
    }
}

/// Why a walk stopped, in a few words.
pub fn brief(end: StackEnd) -> &'static str {
    match end {
        StackEnd::Bottom | StackEnd::ZeroReturn => "complete",
        StackEnd::NoMapping => "not mapped",
        StackEnd::NoTable => "no unwind table",
        StackEnd::NoRow => "no entry in the unwind table",
        StackEnd::Unsupported => "unwind rule not supported",
        StackEnd::Unreadable => "stack not readable",
        StackEnd::BadFrame => "damaged stack or wrong unwind rule",
        StackEnd::Internal => "fault of leakd",
        StackEnd::Depth => "too deep",
        StackEnd::Stale => "library loaded or replaced",
        StackEnd::NotSeen => "not seen",
        StackEnd::SiteTableFull => "table of call sites full",
    }
}

/// Why frames are missing at the outer end, as a person would say it.
fn incomplete(end: StackEnd) -> Option<&'static str> {
    Some(match end {
        StackEnd::Bottom | StackEnd::ZeroReturn => return None,
        StackEnd::NoMapping => "callers unknown: the code is in no known mapping",
        StackEnd::NoTable => "callers unknown: the file has no unwind table",
        StackEnd::NoRow => "callers unknown: the unwind table has no entry here",
        StackEnd::Unsupported => "callers unknown: the unwind rule is not supported",
        StackEnd::Unreadable => "callers unknown: the stack could not be read",
        StackEnd::BadFrame => "callers unknown: the stack is damaged, or its rules are wrong",
        StackEnd::Internal => "callers unknown: a fault of leakd; please report it",
        StackEnd::Depth => "outer callers left out: the stack is deeper than leakd keeps",
        StackEnd::Stale => "uncertain: libraries were loaded or replaced there",
        StackEnd::NotSeen => "the call stack was not seen",
        StackEnd::SiteTableFull => "several call sites: the table of call sites was full",
    })
}
