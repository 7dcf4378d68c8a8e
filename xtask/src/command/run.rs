//! `cargo xtask run`

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};

use super::build;
use crate::process::{self, say};
use crate::{toolchain, workspace};

/// How long the example is watched: the whole of a second run is to stay within
/// 15 seconds.
const EXAMPLE_OPTIONS: [&str; 2] = ["--for", "10s"];

/// leakctl's exit status when it found leaks: for the example that is success.
const LEAKS_FOUND: u8 = 1;

/// Runs leakctl on the example server, on a process, or with any arguments;
/// returns its exit status.
pub fn run(arguments: &[String]) -> Result<u8> {
    toolchain::ensure()?;
    match arguments.first() {
        None => example(),
        Some(first) if !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit()) => {
            build::packages(true, &["leakd"])?;
            leakctl("attach probes to your process", &["attach"], arguments)
        }
        Some(_) => {
            build::packages(true, &["leakd"])?;
            leakctl("run leakctl", &[], arguments)
        }
    }
}

fn example() -> Result<u8> {
    build::packages(true, &["leakd", "leaky-server"])?;
    let server = Server::start()?;
    say!("started leaky-server, process {}; three of its functions leak", server.pid());
    say!("leakctl attach {} {}", server.pid(), EXAMPLE_OPTIONS.join(" "));
    let mut options = vec![server.pid().to_string()];
    options.extend(EXAMPLE_OPTIONS.map(str::to_owned));
    match leakctl("attach probes to the example server", &["attach"], &options)? {
        0 | LEAKS_FOUND => Ok(0),
        status => Ok(status),
    }
}

fn leakctl(reason: &str, subcommand: &[&str], arguments: &[String]) -> Result<u8> {
    let program = workspace::programs(true).join("leakctl");
    let mut command = process::as_root(program, &[], reason)?;
    process::outlive_interrupts()?;
    let status = process::status(command.args(subcommand).args(arguments))?;
    match status.code() {
        Some(code) => Ok(u8::try_from(code).unwrap_or(2)),
        None => bail!("leakctl was ended by a signal ({status})"),
    }
}

/// The example server, ended when this is dropped.
#[derive(Debug)]
struct Server {
    child: Child,
    /// Kept open: without a reader the server could not print.
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    /// Starts it with its own traffic and waits until it says that it is ready.
    fn start() -> Result<Self> {
        let program = workspace::programs(true).join("leaky-server");
        let mut child = Command::new(&program)
            .arg("--until-eof") // it ends with us, however we end
            .process_group(0) // Ctrl-C is for leakctl, which then reports
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let stdout = child.stdout.take().context("the server's output is not a pipe")?;
        let mut server = Self { child, _stdout: BufReader::new(stdout) };
        let mut line = String::new();
        server._stdout.read_line(&mut line).context("cannot read from leaky-server")?;
        if !line.contains("ready") {
            bail!("leaky-server did not come up: it printed {line:?}");
        }
        Ok(server)
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if the server has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
