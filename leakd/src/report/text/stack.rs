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

const INDENT: &str = "    ";
const MARK_INLINED: &str = " (inlined)";

/// Adds a stack and, where it is not complete, why.
pub fn push(page: &mut Page, stack: &[Frame], end: StackEnd) {
    let culprit = name::culprit(stack);
    let (first, last) = if page.all_frames || stack.len() <= SHOWN {
        (stack.len(), stack.len())
    } else {
        // The culprit may lie deep inside of templates; it must be seen.
        let first = culprit.map_or(INNERMOST, |index| (index + 2).clamp(INNERMOST, 24));
        let first = first.min(stack.len());
        (first, (stack.len() - OUTERMOST).max(first))
    };
    let shown = stack[..first].iter().chain(&stack[last..]);
    let widest = shown.map(|frame| columns(&place(frame, page.width))).max().unwrap_or(0);
    // Functions get the larger part of a line.
    let room = page.width.saturating_sub(INDENT.len() + 2);
    let place_room = widest.min(room * 2 / 5);
    for (index, frame) in stack.iter().enumerate() {
        if index == first && first < last {
            let more = format!("{INDENT}... {} more frames", last - first);
            page.line(Role::Dim, &more);
        }
        if index < first || index >= last {
            push_frame(page, frame, culprit == Some(index), room - place_room, place_room);
        }
    }
    if let Some(reason) = incomplete(end) {
        page.line(Role::Warning, &format!("{INDENT}? {reason}"));
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
    } else if frame.function.as_deref().is_none_or(name::is_boilerplate) {
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

fn base_name(path: &str) -> &str {
    match path.trim_end_matches('/').rsplit_once('/') {
        Some((_, name)) => name,
        None => path,
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
        StackEnd::NotSeen => "the call stack was not seen",
        StackEnd::SiteTableFull => "several call sites: the table of call sites was full",
    })
}
