//! `leakctl top`: all processes and what they hold, live.
//!
//! | file | concern |
//! |---|---|
//! | [`source`], [`own`] | who answers: the daemon, or leakd's core in here |
//! | [`poll`] | asks, on a thread of its own |
//! | [`message`] | what the parts say to each other |
//! | [`state`], [`input`] | what is shown, and what keys and mouse do to it |
//! | [`rows`], [`list`] | order, filter, cursor |
//! | [`action`] | the keyboard map |
//! | [`draw`] | pure functions from the state to the screen |
//! | [`screen`] | the terminal, given back however we end |
//! | [`simulated`] | a made-up machine, for tests and the benchmark |

pub mod action;
pub mod draw;
mod input;
pub mod list;
pub mod message;
mod own;
mod poll;
pub mod rows;
mod screen;
pub mod simulated;
mod source;
pub mod state;

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use ratatui::crossterm::event;
use tokio::signal::unix::{SignalKind, signal};

pub use own::Own;
pub use source::{Daemon, Source};

use message::{Message, Order};
use screen::Screen;
use state::{Goes, State};

/// Without news, ages on the screen are drawn again.
const TICK: Duration = Duration::from_secs(1);
/// Messages that are taken in before the next drawing.
const AT_ONCE: usize = 256;

/// Shows what the source tells, until the person has seen enough.
///
/// # Errors
/// If there is no terminal, or it has gone.
pub async fn run(source: impl Source + 'static) -> io::Result<()> {
    let (messages, receiver) = mpsc::channel();
    let (orders, ordered) = mpsc::channel();
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
        let (mut signal, messages) = (signal(kind)?, messages.clone());
        tokio::spawn(async move {
            while signal.recv().await.is_some() {
                let _ = messages.send(Message::End);
            }
        });
    }
    let screen = Screen::take()?;
    let at_end = EndAtDrop(messages.clone());
    let polled = messages.clone();
    thread::Builder::new().name("top-poll".to_owned()).spawn(move || {
        let _at_end = at_end;
        poll::run(source, &ordered, polled);
    })?;
    let at_end = EndAtDrop(messages);
    thread::Builder::new().name("top-input".to_owned()).spawn(move || read_input(&at_end))?;
    tokio::task::spawn_blocking(move || show(screen, &receiver, &orders))
        .await
        .unwrap_or_else(|_| Err(io::Error::other("a fault of leakctl: see above")))
}

/// A thread that ends, or panics, ends everything.
struct EndAtDrop(Sender<Message>);

impl Drop for EndAtDrop {
    fn drop(&mut self) {
        let _ = self.0.send(Message::End);
    }
}

fn read_input(messages: &EndAtDrop) {
    while let Ok(event) = event::read() {
        if messages.0.send(Message::Input(event)).is_err() {
            return;
        }
    }
}

/// Draws whenever something happens.
fn show(
    mut screen: Screen,
    messages: &Receiver<Message>,
    orders: &Sender<Order>,
) -> io::Result<()> {
    let mut state = State::new(screen.size()?);
    loop {
        screen.draw(&state)?;
        let first = match messages.recv_timeout(TICK) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        for message in first.into_iter().chain(messages.try_iter().take(AT_ONCE)) {
            panic_if_tested(&message);
            state.update(message);
        }
        for order in state.orders.drain(..) {
            if order == Order::Refresh {
                screen.clear()?;
            }
            // The poller has ended: that ends us, too.
            let _ = orders.send(order);
        }
        match std::mem::take(&mut state.goes) {
            Goes::On => {}
            Goes::End => return Ok(()),
            Goes::Suspend => {
                screen.suspend()?;
                state.resize(screen.size()?);
            }
        }
    }
}

/// For the test that a panic gives the terminal back.
fn panic_if_tested(message: &Message) {
    if cfg!(debug_assertions)
        && matches!(message, Message::Processes(_))
        && std::env::var_os("LEAKD_TEST_PANIC").is_some()
    {
        panic!("asked for by LEAKD_TEST_PANIC");
    }
}
