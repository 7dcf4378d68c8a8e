//! The terminal: taken, and given back however we end.

use std::io::{self, Stdout, Write, stdout};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::event::{DisableMouseCapture, EnableMouseCapture};
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::crossterm::{execute, queue};

use super::draw::{Theme, draw};
use super::state::State;

/// The terminal is ours.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal, in raw mode, on its alternate screen. Dropping it gives the
/// terminal back; so does a panic of any thread, before its message.
#[derive(Debug)]
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    theme: Theme,
    mouse: bool,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// If there is none.
    pub fn take() -> io::Result<Self> {
        restore_on_panic();
        take()?;
        let terminal = Terminal::new(CrosstermBackend::new(stdout()));
        match terminal {
            Ok(terminal) => Ok(Self { terminal, theme: Theme::of_terminal(), mouse: true }),
            Err(error) => {
                restore();
                Err(error)
            }
        }
    }

    /// Columns and lines.
    ///
    /// # Errors
    /// If the terminal has gone.
    pub fn size(&self) -> io::Result<(u16, u16)> {
        let size = self.terminal.size()?;
        Ok((size.width, size.height))
    }

    /// Draws.
    ///
    /// # Errors
    /// If the terminal has gone.
    pub fn draw(&mut self, state: &State) -> io::Result<()> {
        if !TAKEN.load(Ordering::SeqCst) {
            return Err(io::Error::other("the terminal was given back"));
        }
        if state.mouse != self.mouse {
            self.mouse = state.mouse;
            match self.mouse {
                true => execute!(stdout(), EnableMouseCapture)?,
                false => execute!(stdout(), DisableMouseCapture)?,
            }
        }
        let theme = self.theme;
        self.terminal.draw(|frame| draw(state, theme, frame.buffer_mut()))?;
        Ok(())
    }

    /// Draws everything anew next time.
    ///
    /// # Errors
    /// If the terminal has gone.
    pub fn clear(&mut self) -> io::Result<()> {
        self.terminal.clear()
    }

    /// Gives the terminal to the shell until `fg`.
    ///
    /// # Errors
    /// If the terminal has gone.
    pub fn suspend(&mut self) -> io::Result<()> {
        restore();
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGTSTP)?;
        take()?;
        if !self.mouse {
            execute!(stdout(), DisableMouseCapture)?;
        }
        self.terminal.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

fn take() -> io::Result<()> {
    enable_raw_mode()?;
    TAKEN.store(true, Ordering::SeqCst);
    let entered = execute!(stdout(), EnterAlternateScreen, EnableMouseCapture, Hide);
    if entered.is_err() {
        restore();
    }
    entered
}

/// Gives the terminal back, once. What cannot be done to a terminal that has
/// gone need not be done.
fn restore() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let mut out = stdout();
        let _ = queue!(out, DisableMouseCapture, LeaveAlternateScreen, Show);
        let _ = out.flush();
        let _ = disable_raw_mode();
    }
}

fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            before(panic);
        }));
    });
}
