//! A terminal to look at: tmux.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Longer than anything takes; only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(120);

/// A terminal with a shell in it, on a tmux server of its own.
pub struct Terminal {
    server: String,
}

impl Terminal {
    /// Opens one of 80x24.
    pub fn open(name: &str) -> Self {
        let terminal = Self { server: format!("leakd-{name}-{}", std::process::id()) };
        let shell = "env LANG=C.UTF-8 LC_ALL= NO_COLOR=1 RUST_BACKTRACE=0 PS1='ready> ' sh";
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", shell]);
        terminal.wait_for("ready>");
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux").args(["-L", &self.server]).args(arguments).output();
        let output = output.expect("tmux is installed: `cargo xtask test` sees to that");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tmux {arguments:?}: {said}");
        String::from_utf8(output.stdout).expect("a screen is UTF-8")
    }

    /// Presses keys, by tmux's names.
    pub fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Types text.
    pub fn type_text(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
    }

    /// Runs a command line of the shell.
    pub fn run(&self, line: &str) {
        self.type_text(line);
        self.press(&["Enter"]);
    }

    /// Another size.
    pub fn resize(&self, width: u16, height: u16) {
        let (width, height) = (width.to_string(), height.to_string());
        self.tmux(&["resize-window", "-x", &width, "-y", &height]);
    }

    /// What is on the screen; what the terminal wrapped is one line.
    pub fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-J"])
    }

    /// Waits until the screen has this; gives the screen.
    pub fn wait_for(&self, text: &str) -> String {
        self.wait_until(text, |screen| screen.contains(text))
    }

    /// Waits until the screen is as wanted.
    pub fn wait_until(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let begin = Instant::now();
        loop {
            let screen = self.screen();
            if wanted(&screen) {
                return screen;
            }
            assert!(begin.elapsed() < PATIENCE, "waited for {what:?}:\n{screen}");
            sleep(Duration::from_millis(50));
        }
    }

    /// Asserts that the terminal is the shell's again: main screen, cursor,
    /// no mouse, and the modes of the line as `stty` told them before.
    pub fn assert_restored(&self, before: &str) {
        let flags = "#{alternate_on} #{mouse_any_flag} #{cursor_flag}";
        assert_eq!(self.tmux(&["display-message", "-p", flags]).trim(), "0 0 1");
        assert_eq!(self.modes(), before);
    }

    /// The modes of the line.
    pub fn modes(&self) -> String {
        let tty = self.tmux(&["display-message", "-p", "#{pane_tty}"]);
        let output = Command::new("stty").args(["-a", "-F", tty.trim()]).output();
        let output = output.expect("stty is part of every system");
        assert!(output.status.success());
        let modes = String::from_utf8(output.stdout).expect("modes are text");
        // The first line has the size, which is none of them.
        modes.lines().skip(1).collect()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new("tmux").args(["-L", &self.server, "kill-server"]).status();
    }
}
