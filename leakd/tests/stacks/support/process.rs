//! Processes under test.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// After this long something hangs. No test measures time with it.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// A child with stdin and stdout in our hands, in a group of its own; killed
/// when this is dropped, or when the test is.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    said: Receiver<u8>,
}

impl Process {
    /// Starts the command.
    pub fn start(mut command: Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
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
        let mut stdout = child.stdout.take().expect("stdout is a pipe");
        let (sender, said) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut bytes) {
                if bytes[..length].iter().any(|byte| sender.send(*byte).is_err()) {
                    return;
                }
            }
        });
        let stdin = child.stdin.take();
        Self { child, stdin, said }
    }

    /// Starts one of the programs of `programs/stages.h`, until it is ready.
    pub fn start_ready(command: Command) -> Self {
        let process = Self::start(command);
        assert_eq!(process.said.recv_timeout(PATIENCE), Ok(b'r'), "the program is not ready");
        process
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes to its stdin.
    pub fn write(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("stdin was closed");
        stdin.write_all(bytes).expect("the program reads its stdin no more");
    }

    /// Its stdin, for somebody else to write to and to close.
    pub fn take_stdin(&mut self) -> ChildStdin {
        self.stdin.take().expect("stdin was closed")
    }

    /// Whether it has said this byte by now; fails if it has ended.
    pub fn has_said(&mut self, what: u8) -> bool {
        if self.said.try_iter().any(|byte| byte == what) {
            return true;
        }
        let ended = self.child.try_wait().expect("it is our child");
        assert!(ended.is_none(), "the program ended with {ended:?}");
        false
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // A server's workers, too. The group's id is not reused before the child
        // has been waited for.
        if let Ok(None) = self.child.try_wait() {
            let _ = killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}
