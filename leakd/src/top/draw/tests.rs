use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Rect;

use super::*;
use crate::protocol::{Ask, KernelGrowth, Targets};
use crate::top::message::{Message, Order};
use crate::top::simulated::Simulated;
use crate::top::state::Goes;

const MACHINE: Simulated = Simulated { processes: 45, sites: 60 };
const THEME: Theme = Theme { coloured: false, unicode: true };

/// The machine, on a screen of this size.
fn state(size: (u16, u16)) -> State {
    let mut state = State::new(size);
    state.update(Message::Status(Box::new(MACHINE.status())));
    let processes = (0..MACHINE.processes).map(|number| MACHINE.process(number, false)).collect();
    state.update(Message::Processes(Targets { processes, omitted: 0 }));
    state.update(Message::Detail(Box::new(MACHINE.process(40, true))));
    state
}

fn press(state: &mut State, keys: &[KeyCode]) {
    for &key in keys {
        state.update(Message::Input(Event::Key(KeyEvent::new(key, KeyModifiers::NONE))));
    }
}

fn letters(state: &mut State, text: &str) {
    press(state, &text.chars().map(KeyCode::Char).collect::<Vec<_>>());
}

/// Goes to the call sites of the first process.
fn with_sites(size: (u16, u16)) -> State {
    let mut state = state(size);
    press(&mut state, &[KeyCode::Enter]);
    state.update(Message::Sites((1040, 7), Ok(Box::new(MACHINE.target(1040)))));
    state
}

fn screen(state: &State) -> String {
    let (width, height) = state.size;
    let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
    draw(state, THEME, &mut buffer);
    let line = |row| {
        let cells: String = (0..width).map(|column| buffer[(column, row)].symbol()).collect();
        cells.trim_end().to_owned()
    };
    (0..height).map(line).collect::<Vec<_>>().join("\n")
}

/// Check the three pages and the help, at the least size and at a large one.
#[test]
fn pages() {
    for size in [(80, 24), (120, 40)] {
        let name = |page: &str| format!("{page}_{}x{}", size.0, size.1);
        insta::assert_snapshot!(name("processes"), screen(&state(size)));
        let mut state = with_sites(size);
        insta::assert_snapshot!(name("sites"), screen(&state));
        press(&mut state, &[KeyCode::Down, KeyCode::Enter]);
        insta::assert_snapshot!(name("stack"), screen(&state));
        letters(&mut state, "?");
        insta::assert_snapshot!(name("help"), screen(&state));
    }
}

/// Check that it is told when the kernel's own memory grows, unless it is taken
/// back when memory is short.
#[test]
fn kernel_that_grows() {
    let mut state = state((80, 24));
    assert!(!screen(&state).contains("KERNEL"));
    let growing = |name: &str, reclaimable| KernelGrowth {
        name: name.to_owned(),
        reclaimable,
        ..KernelGrowth::default()
    };
    let mut status = MACHINE.status();
    status.kernel_memory.growing = vec![growing("dentry", true)];
    state.update(Message::Status(Box::new(status.clone())));
    assert!(!screen(&state).contains("KERNEL"));
    status.kernel_memory.growing.extend([growing("\u{1b}[2Jx", false), growing("y", false)]);
    state.update(Message::Status(Box::new(status)));
    let first = screen(&state).lines().next().expect("a line").to_owned();
    assert!(first.contains("KERNEL GROWS: ") && first.ends_with("[2Jx and 1 more"), "{first}");
    assert!(!first.contains(char::is_control), "{first:?}");
}

/// Check that any size can be drawn, on all pages.
#[test]
fn absurd_sizes() {
    for width in [0, 1, 2, 29, 30, 31, 40, 79, 500] {
        for height in [0, 1, 2, 5, 6, 7, 17, 18, 300] {
            let mut state = with_sites((width, height));
            for _ in 0..2 {
                assert_eq!(screen(&state).split('\n').count(), usize::from(height.max(1)));
                press(&mut state, &[KeyCode::End, KeyCode::Enter]);
            }
            letters(&mut state, "?");
            screen(&state);
        }
    }
}

/// Check that a screen that got smaller than the state knows is drawn, too.
#[test]
fn resized_meanwhile() {
    let state = state((120, 40));
    for (width, height) in [(30, 6), (80, 12), (200, 80)] {
        draw(&state, THEME, &mut Buffer::empty(Rect::new(0, 0, width, height)));
    }
}

/// Check that nothing from outside reaches the terminal as it was: neither a
/// process's name nor an error.
#[test]
fn text_from_outside() {
    let mut state = with_sites((120, 40));
    if let Some(Ok(target)) = &mut state.target {
        let frame = &mut target.sites[0].stack[1];
        frame.function = Some("evil\x1b[2J\u{202e}".to_owned());
        frame.file = Some("/a/b\x07\n.c".to_owned());
        frame.module = Some("\x1bmodule".to_owned());
        target.sites[0].id = "\x1bid".to_owned();
    }
    state.arrange_sites();
    let bad = |text: &str| text.chars().any(|c| c.is_control() && c != '\n' || c == '\u{202e}');
    for _ in 0..3 {
        assert!(!bad(&screen(&state)), "{}", screen(&state));
        press(&mut state, &[KeyCode::Enter]);
    }
    assert!(screen(&state).contains("evil\\x1b[2J"), "{}", screen(&state));
    press(&mut state, &[KeyCode::Esc, KeyCode::Esc]);
    state.processes[40].comm = "a\x1b]0;b\x07".to_owned();
    letters(&mut state, "a");
    assert!(!bad(&screen(&state)));
    assert!(screen(&state).contains("attach to a\\x1b]0;b\\x07 (pid 1040)? y/n"));
    press(&mut state, &[KeyCode::Esc]);
    for message in [Message::Lost("\x1b[0m".to_owned()), Message::Done(Err("\x1b".to_owned()))] {
        state.update(message);
        assert!(!bad(&screen(&state)));
    }
}

/// Check that the governor and what was lost are on every page, and that an
/// answer that stays away is told.
#[test]
fn governor_is_always_there() {
    let mut state = with_sites((80, 24));
    for _ in 0..3 {
        let text = screen(&state);
        let line = text.lines().nth(1).unwrap_or_default();
        assert!(
            line.starts_with("governor:") && line.ends_with("lost 2") || line.ends_with("lost 3"),
            "{text}"
        );
        press(&mut state, &[KeyCode::Enter]);
    }
    press(&mut state, &[KeyCode::Esc, KeyCode::Esc]);
    assert!(screen(&state).lines().nth(1).unwrap_or_default().ends_with("lost 3"));
    state.update(Message::Lost("the daemon has gone".to_owned()));
    let text = screen(&state);
    assert!(text.contains("NO ANSWER") && text.contains("the daemon has gone"), "{text}");
    state.update(Message::Status(Box::new(MACHINE.status())));
    assert!(!screen(&state).contains("NO ANSWER"));
}

/// Check that attach and detach are asked before they are done, done only upon
/// `y`, and to no other process that has been given the pid since.
#[test]
fn commands_are_asked_first() {
    let mut state = state((80, 24));
    let (pid, start_time) = (1040, Some(7));
    let attach = Order::Do(Ask::Attach { pid, start_time, for_ms: None, sample_bytes: None });
    letters(&mut state, "an");
    assert!(!state.orders.contains(&attach));
    letters(&mut state, "ay");
    assert!(state.orders.contains(&attach));
    letters(&mut state, "dy");
    assert!(state.orders.contains(&Order::Do(Ask::Detach { pid, start_time })));
    state.update(Message::Done(Err("only root may".to_owned())));
    assert!(screen(&state).contains("only root may"));
}

/// Check filter, orders, pause and the ways back.
#[test]
fn keys() {
    let mut state = state((80, 24));
    letters(&mut state, "/POSTGRES");
    assert_eq!(state.process_list.len(), 9);
    press(&mut state, &[KeyCode::Enter]);
    assert!(screen(&state).contains("filter: POSTGRES"));
    press(&mut state, &[KeyCode::Esc]);
    assert_eq!(state.process_list.len(), 45);
    letters(&mut state, "t");
    assert_eq!(state.process_list.len(), 5, "those that grow");
    letters(&mut state, "t5");
    assert_eq!(state.selected().map(|process| process.pid), Some(1000));
    letters(&mut state, "5");
    assert_eq!(state.selected().map(|process| process.pid), Some(1044), "turned round");
    letters(&mut state, "p");
    state.update(Message::Processes(Targets::default()));
    assert_eq!(state.process_list.len(), 45, "held still");
    assert!(screen(&state).contains("PAUSED"));
    letters(&mut state, "pq");
    assert_eq!(state.goes, Goes::End);
}

/// Check that a click chooses a line, a second one opens it, and one on a
/// heading chooses the order.
#[test]
fn mouse() {
    use ratatui::crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
    let mut state = state((80, 24));
    let mut click = |column, row| {
        let kind = MouseEventKind::Down(MouseButton::Left);
        let event = MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE };
        state.update(Message::Input(Event::Mouse(event)));
        (state.process_list.position(), state.page, state.sort)
    };
    assert_eq!(click(5, FIRST_ROW + 2).0, 2);
    assert_eq!(click(70, 23).0, 2, "the footer is no line");
    assert_eq!(click(5, FIRST_ROW + 2).1, Page::Sites);
    assert_eq!(click(5, 0).1, Page::Sites);
    press(&mut state, &[KeyCode::Esc]);
    let row = screen(&state).lines().nth(2).unwrap_or_default().to_owned();
    let column = row.find("MEMORY").expect("a heading") as u16;
    let kind = MouseEventKind::Down(MouseButton::Left);
    let event = MouseEvent { kind, column, row: HEADING_ROW, modifiers: KeyModifiers::NONE };
    state.update(Message::Input(Event::Mouse(event)));
    assert_eq!(state.sort, crate::protocol::Sort::Memory);
}
