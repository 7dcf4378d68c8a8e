//! `leakctl`, started by a test.

use super::{process::Process, report::Report, wait_for};
use crate::host::is_emulated;
use nix::sys::signal::Signal;
use std::{ffi::OsStr, os::unix::process::ExitStatusExt, process::Command};

/// `leakctl attach` says this word on stderr, in a line of its own or among
/// others, when all probes are live.
const ATTACHED: &str = "attached";

/// A running `leakctl`.
#[derive(Debug)]
pub struct Leakctl(Process);

/// How it ended.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit status, or 128 + the signal that killed it.
    pub status: i32,
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
}

impl Leakctl {
    /// The command, without arguments, in a known environment.
    pub fn command() -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_leakctl"));
        command.env_remove("RUST_LOG").env_remove("ROUNDS").env("NO_COLOR", "1");
        command
    }

    /// Starts it with these arguments.
    pub fn start(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let mut command = Self::command();
        command.args(arguments);
        Self::start_command(command)
    }

    /// Starts a prepared [`Self::command`].
    pub fn start_command(command: Command) -> Self {
        super::require_machine();
        Self(Process::start(command))
    }

    /// What makes the tables of a process smaller where the kernel would need a
    /// tenth of all its time to make and to read them.
    pub fn tables() -> &'static [&'static str] {
        if is_emulated() { &["--max-blocks", "262144"] } else { &[] }
    }

    /// Starts `leakctl attach --json PID` for as long as the test wants and
    /// waits until it is attached.
    pub fn attach(pid: i32, arguments: &[&str]) -> Self {
        let pid = pid.to_string();
        let mut all = vec!["attach", &pid, "--json", "--for", "1h"];
        all.extend(Self::tables());
        all.extend(arguments);
        let mut leakctl = Self::start(all);
        leakctl.wait_attached();
        leakctl
    }

    /// Waits until it says that it is attached.
    pub fn wait_attached(&mut self) {
        self.wait_said(ATTACHED);
    }

    /// Waits until it has said this on stderr.
    pub fn wait_said(&mut self, text: &str) {
        let said = wait_for("leakctl to say what it should", || {
            let said = self.0.stderr();
            (said.contains(text) || self.0.ended()).then_some(said)
        });
        assert!(
            said.contains(text),
            "leakctl ended without having said {text:?}: {:?}",
            self.outcome()
        );
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.0.pid()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.0.signal(signal);
    }

    /// Sends it a signal, if it has not ended.
    pub fn try_signal(&mut self, signal: Signal) {
        if !self.0.ended() {
            self.signal(signal);
        }
    }

    /// Its stdin gets this text and is closed.
    pub fn feed(&mut self, text: &str) {
        self.0.write(text);
        self.0.close_stdin();
    }

    /// Waits for its end.
    pub fn outcome(&mut self) -> Outcome {
        self.0.close_stdin();
        let status = self.0.wait();
        let stdout = self.0.rest();
        let status = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        let outcome = Outcome { status, stdout, stderr: self.0.stderr_to_the_end() };
        assert!(!outcome.stderr.contains("panicked"), "leakctl panicked: {outcome:?}");
        outcome
    }

    /// Ends it as Ctrl-C does; the report must say that there are leaks.
    pub fn interrupt(mut self) -> Report {
        self.signal(Signal::SIGINT);
        self.outcome().report(1)
    }

    /// Waits for it to end by itself; the report must say that there are
    /// leaks.
    pub fn finish(mut self) -> Report {
        self.outcome().report(1)
    }
}

impl Outcome {
    /// The report on stdout, after a look at the exit status.
    pub fn report(&self, status: i32) -> Report {
        assert_eq!(self.status, status, "leakctl's exit status; it said: {self:?}");
        Report::parse(&self.stdout)
    }

    /// Checks that it was refused: status 2, one line on stderr, nothing on
    /// stdout; the line says one of `words`.
    pub fn assert_refused(&self, words: &[&str]) {
        assert_eq!(self.status, 2, "trouble has exit status 2: {self:?}");
        assert_eq!(self.stdout, "", "a refusal prints nothing on stdout: {self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "a refusal is one line: {self:?}");
        let said = self.stderr.to_lowercase();
        assert!(
            words.iter().any(|word| said.contains(&word.to_lowercase())),
            "the line should say one of {words:?}: {self:?}"
        );
    }
}

impl Outcome {
    /// Checks that it gave up after it had attached: status 2, nothing on stdout,
    /// and a last line on stderr that has `word`.
    pub fn assert_refused_after_attach(&self, word: &str) {
        assert_eq!(self.status, 2, "trouble has exit status 2: {self:?}");
        assert_eq!(self.stdout, "", "nothing is known: {self:?}");
        let last = self.stderr.lines().last().unwrap_or_default();
        assert!(last.starts_with("leakctl: ") && last.contains(word), "{word}: {self:?}");
    }

    /// Checks that its arguments were refused, with a word about `option`.
    pub fn assert_usage(&self, option: &str) {
        assert_eq!(self.status, 2, "{self:?}");
        assert!(self.stderr.contains(option), "{option}: {self:?}");
    }
}

/// Runs `leakctl` with these arguments to its end.
pub fn leakctl(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Outcome {
    Leakctl::start(arguments).outcome()
}
