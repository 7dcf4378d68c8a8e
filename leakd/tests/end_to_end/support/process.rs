//! Processes that tests start: a group of their own, ended on drop, never
//! outliving the test.

use super::{PATIENCE, wait_for};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
    thread::JoinHandle,
};

/// A running child with piped stdin, stdout and stderr.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    stderr: Arc<Mutex<String>>,
    stderr_reader: Option<JoinHandle<()>>,
    name: String,
}

/// Reads to the end on a thread, so that the child never blocks on a pipe.
fn collect(mut source: impl Read + Send + 'static) -> (Arc<Mutex<String>>, JoinHandle<()>) {
    let text = Arc::new(Mutex::new(String::new()));
    let into = text.clone();
    let reader = std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = source.read(&mut piece) {
            into.lock()
                .expect("a reader died")
                .push_str(&String::from_utf8_lossy(&piece[..length]));
        }
    });
    (text, reader)
}

impl Process {
    /// Starts the command.
    pub fn start(mut command: Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        // SAFETY: prctl is a plain system call and may be made between fork
        // and exec.
        unsafe {
            command.pre_exec(|| {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let (stderr, reader) = collect(child.stderr.take().expect("piped"));
        let stdin = child.stdin.take();
        Self { child, stdin, lines, stderr, stderr_reader: Some(reader), name }
    }

    /// Starts one of our programs and waits until it says "ready".
    pub fn start_ready(command: Command) -> Self {
        super::require_machine();
        let process = Self::start(command);
        process.wait_ready();
        process
    }

    /// Waits for the line "ready PID" and gives the pid.
    pub fn wait_ready(&self) -> i32 {
        let line = self.line();
        line.strip_prefix("ready ")
            .and_then(|pid| pid.parse().ok())
            .unwrap_or_else(|| panic!("{} said {line:?} where \"ready PID\" was due", self.name))
    }

    /// The process id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("pids fit i32")
    }

    /// The next line of its stdout.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).unwrap_or_else(|error| {
            panic!("no line from {}: {error}; its stderr:\n{}", self.name, self.stderr())
        })
    }

    /// The next line of its stdout, as JSON.
    pub fn json_line(&self) -> Value {
        let line = self.line();
        serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{} said {line:?}: {error}", self.name))
    }

    /// Writes one empty line to its stdin.
    pub fn go(&mut self) {
        self.write("\n");
    }

    /// Writes to its stdin.
    pub fn write(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("stdin was closed");
        stdin.write_all(text.as_bytes()).unwrap_or_else(|error| {
            panic!("{} reads its stdin no more: {error}; {}", self.name, self.stderr())
        });
    }

    /// Asks for the truth so far: `(rounds, leaked blocks, leaked bytes)`.
    pub fn truth(&mut self) -> Truth {
        self.go();
        Truth::from(&self.json_line())
    }

    /// Waits until it has leaked this many blocks in all.
    pub fn wait_until_leaked(&mut self, blocks: u64) -> Truth {
        wait_for("the program to leak", || {
            let truth = self.truth();
            (truth.blocks >= blocks).then_some(truth)
        })
    }

    /// What it wrote to stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("a reader died").clone()
    }

    /// All that it wrote to stderr; call after [`Self::wait`].
    pub fn stderr_to_the_end(&mut self) -> String {
        if let Some(reader) = self.stderr_reader.take() {
            reader.join().expect("a reader died");
        }
        self.stderr()
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    /// Its stdin, for somebody else to close.
    pub fn take_stdin(&mut self) -> ChildStdin {
        self.stdin.take().expect("stdin was closed")
    }

    /// Closes its stdin.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("it has not been waited for");
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let name = self.name.clone();
        wait_for(&format!("{name} to end"), || self.child.try_wait().expect("it is our child"))
    }

    /// Everything that is left on its stdout; call after [`Self::wait`].
    pub fn rest(&self) -> String {
        let mut text = String::new();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            text.push_str(&line);
            text.push('\n');
        }
        text
    }

    /// Ends one of our programs the friendly way: it must still be well.
    pub fn end(&mut self) {
        self.close_stdin();
        let status = self.wait();
        assert!(status.success(), "{} ended with {status}:\n{}", self.name, self.stderr());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The group is gone already if all went well; its id is not reused
        // before the child has been waited for.
        if let Ok(None) = self.child.try_wait() {
            let _ = killpg(Pid::from_raw(self.pid()), Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// What a program says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truth {
    /// Rounds so far.
    pub rounds: u64,
    /// Blocks leaked so far.
    pub blocks: u64,
    /// Bytes leaked so far.
    pub bytes: u64,
}

impl From<&Value> for Truth {
    fn from(json: &Value) -> Self {
        let number = |name: &str| json[name].as_u64().unwrap_or(0);
        Self {
            rounds: number("rounds"),
            blocks: number("leaked_blocks"),
            bytes: number("leaked_bytes"),
        }
    }
}
