//! How long `leakctl top` takes from a key to the screen, with 1,000 processes
//! and 10,000 call sites: `cargo run --release --example top`.
//!
//! A benchmark, not a test: the goal is 100 ms.
#![allow(clippy::print_stdout, reason = "it prints its result")]

use std::time::{Duration, Instant};

use leakd::protocol::Targets;
use leakd::top::draw::{Theme, draw};
use leakd::top::message::Message;
use leakd::top::simulated::Simulated;
use leakd::top::state::State;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};

const MACHINE: Simulated = Simulated { processes: 1_000, sites: 10_000 };
const SIZE: (u16, u16) = (200, 60);
const ROUNDS: usize = 20;
const THEME: Theme = Theme { coloured: true, unicode: true };

fn main() -> std::io::Result<()> {
    let mut state = State::new(SIZE);
    state.update(Message::Status(Box::new(MACHINE.status())));
    let processes: Vec<_> = (0..MACHINE.processes).map(|n| MACHINE.process(n, false)).collect();
    state.update(Message::Processes(Targets { processes, omitted: 0 }));
    state.update(Message::Detail(Box::new(MACHINE.process(0, true))));
    println!("from a key to the bytes for the terminal, median and longest of {ROUNDS}:");
    measure("processes: down", &mut state, &[KeyCode::Down])?;
    measure("processes: order", &mut state, &[KeyCode::Char('s')])?;
    measure("processes: reverse", &mut state, &[KeyCode::Char('r')])?;
    measure(
        "processes: filter",
        &mut state,
        &[KeyCode::Char('/'), KeyCode::Char('z'), KeyCode::Esc],
    )?;
    press(&mut state, KeyCode::Home);
    press(&mut state, KeyCode::Enter);
    let who = state.whose.unwrap_or_default();
    let target = Box::new(MACHINE.target(who.0));
    let begin = Instant::now();
    state.update(Message::Sites(who, Ok(target)));
    println!("{:<28}{:>10.2?}", "call sites: new figures", begin.elapsed());
    measure("call sites: down", &mut state, &[KeyCode::Down])?;
    measure("call sites: end, home", &mut state, &[KeyCode::End, KeyCode::Home])?;
    measure("call sites: order", &mut state, &[KeyCode::Char('s')])?;
    measure(
        "call sites: filter",
        &mut state,
        &[KeyCode::Char('/'), KeyCode::Char('z'), KeyCode::Esc],
    )?;
    measure("call sites: stack and back", &mut state, &[KeyCode::Enter, KeyCode::Esc])?;
    Ok(())
}

fn press(state: &mut State, key: KeyCode) {
    state.update(Message::Input(Event::Key(KeyEvent::new(key, KeyModifiers::NONE))));
}

/// Each key with the drawing that follows it.
fn measure(name: &str, state: &mut State, keys: &[KeyCode]) -> std::io::Result<()> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        for &key in keys {
            let mut bytes = Vec::new();
            let size = ratatui::layout::Rect::new(0, 0, SIZE.0, SIZE.1);
            let options = ratatui::TerminalOptions { viewport: ratatui::Viewport::Fixed(size) };
            // Anew each time: everything is drawn, as after Ctrl-L.
            let mut terminal = Terminal::with_options(CrosstermBackend::new(&mut bytes), options)?;
            let begin = Instant::now();
            press(state, key);
            terminal.draw(|frame| draw(state, THEME, frame.buffer_mut()))?;
            times.push(begin.elapsed());
        }
    }
    times.sort_unstable();
    let median: Duration = times[times.len() / 2];
    println!("{name:<28}{median:>10.2?}{:>12.2?}", times[times.len() - 1]);
    Ok(())
}
