//! `leakd`, started by a test, on a socket and a configuration of its own.

use super::{process::Process, wait_for};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::{net::UnixStream, process::ExitStatusExt},
    path::PathBuf,
    process::Command,
};

/// A running daemon.
#[derive(Debug)]
pub struct Leakd {
    process: Process,
    directory: tempfile::TempDir,
}

impl Leakd {
    /// Starts it with this configuration, apart from the socket; waits until it
    /// is ready.
    pub fn start(config: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self::start_in(directory, config)
    }

    /// The same, in a directory that there is already.
    pub fn start_in(directory: tempfile::TempDir, config: &str) -> Self {
        Self::start_as(directory, config, |command| command)
    }

    /// The same, by a command that is made of the usual one.
    pub fn start_as(
        directory: tempfile::TempDir,
        config: &str,
        change: impl FnOnce(Command) -> Command,
    ) -> Self {
        super::require_machine();
        // The daemon's clients may be other users.
        let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
        fs::set_permissions(directory.path(), mode).expect("our own directory");
        let process = Process::start(Command::new("true"));
        let mut daemon = Self { process, directory };
        daemon.write_config(config);
        daemon.process = Process::start(change(daemon.command()));
        daemon.wait_said("is ready");
        daemon
    }

    /// The command that starts one with the same configuration.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_leakd"));
        command.arg("--config").arg(self.config()).env("NO_COLOR", "1");
        command.env_remove("JOURNAL_STREAM").env_remove("NOTIFY_SOCKET");
        command
    }

    /// Writes its configuration, apart from the socket.
    pub fn write_config(&self, config: &str) {
        let text = format!("{config}\n[server]\nsocket = {:?}\n", self.socket());
        fs::write(self.config(), text).expect("our own directory");
    }

    /// Its configuration.
    pub fn config(&self) -> PathBuf {
        self.directory.path().join("leakd.toml")
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("leakd.sock")
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Waits until its log has this.
    pub fn wait_said(&mut self, text: &str) {
        let said = wait_for("leakd to say what it should", || {
            let said = self.process.stderr();
            (said.contains(text) || self.process.ended()).then_some(said)
        });
        assert!(said.contains(text), "leakd ended without having said {text:?}: {said}");
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Ends it by a signal; gives its exit status, or 128 + the signal that
    /// killed it, and its directory.
    pub fn end(mut self, signal: Signal) -> (i32, tempfile::TempDir) {
        self.process.signal(signal);
        let status = self.process.wait();
        assert!(!self.log().contains("panicked"), "leakd panicked: {}", self.log());
        (status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)), self.directory)
    }

    /// Connects to it.
    pub fn connect(&self) -> UnixStream {
        UnixStream::connect(self.socket()).expect("the daemon listens")
    }

    /// Asks it; gives the answer, whatever it is.
    pub fn ask(&self, mut question: Value) -> Value {
        question["v"] = json!(1);
        self.say(&format!("{question}\n"))
    }

    /// Has it trace a process; gives its answer.
    pub fn attach(&self, pid: i32) -> Value {
        let attached = self.ask(json!({"ask": "attach", "pid": pid}));
        assert_eq!(attached["answer"], "attached", "{attached}");
        attached
    }

    /// Says this to it; gives the first line that it answers.
    pub fn say(&self, text: &str) -> Value {
        let mut stream = self.connect();
        stream.write_all(text.as_bytes()).expect("the daemon reads");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("the daemon answers");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// What it says of a process, if it watches it.
    pub fn process(&self, pid: i32) -> Option<Value> {
        let answer = self.ask(json!({"ask": "targets", "pid": pid, "series": true}));
        answer["processes"].get(0).cloned()
    }

    /// Waits until it watches a process.
    pub fn wait_watched(&self, pid: i32) -> Value {
        wait_for("the daemon to see a process", || self.process(pid))
    }
}
