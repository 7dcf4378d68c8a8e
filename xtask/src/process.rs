//! Starting other programs.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::iter;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigHandler, Signal, signal};

/// Prints one line of progress, on standard error.
macro_rules! say {
    ($($argument:tt)*) => { eprintln!("xtask: {}", format_args!($($argument)*)) };
}
pub(crate) use say;

/// Runs a program and waits for it; an error names it if it does not succeed.
pub fn run(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("{} failed ({status})", name(command));
    }
    Ok(())
}

/// Runs a program and waits for it.
pub fn status(command: &mut Command) -> Result<ExitStatus> {
    command.status().map_err(|error| cannot_start(command, error))
}

/// Runs a program and returns what it printed on standard output.
pub fn output(command: &mut Command) -> Result<String> {
    command.stderr(Stdio::inherit());
    let output = command.output().map_err(|error| cannot_start(command, error))?;
    if !output.status.success() {
        bail!("{} failed ({})", name(command), output.status);
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("{} printed no valid UTF-8", name(command)))
}

/// Runs a program that fails in several lines: only the first that it says is told,
/// as the reason.
pub fn run_tersely(command: &mut Command) -> Result<()> {
    let output = command.output().map_err(|error| cannot_start(command, error))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let first = said.lines().next().unwrap_or_default().trim_start_matches("E: ");
        bail!("{} failed ({}): {first}", name(command), output.status);
    }
    Ok(())
}

/// Runs a program for a question about the machine: nothing of it is shown,
/// and that it is not there is an answer like its failing.
pub fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs a program and ends it when it takes longer than `limit`.
pub fn run_within(command: &mut Command, limit: Duration) -> Result<()> {
    let mut child = command.spawn().map_err(|error| cannot_start(command, error))?;
    let begin = Instant::now();
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => bail!("{} failed ({status})", name(command)),
            None if begin.elapsed() >= limit => {
                child.kill()?;
                child.wait()?;
                bail!("{} took longer than {} s", name(command), limit.as_secs());
            }
            None => thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Variables that reach programs that run through sudo, which drops the rest.
const KEPT: [&str; 8] = [
    "COLUMNS",
    "LANG",
    "LEAKD_RECORD",
    "LEAKD_STACKS",
    "NO_COLOR",
    "PATH",
    "RUST_BACKTRACE",
    "RUST_LOG",
];

/// A command that runs `program` as root, with `variables` in its environment:
/// directly for root, through sudo for others, who are told what for.
pub fn as_root(
    program: impl AsRef<OsStr>,
    variables: &[(&str, &OsStr)],
    reason: &str,
) -> Result<Command> {
    if is_root() {
        let mut command = Command::new(program);
        command.envs(variables.iter().copied());
        return Ok(command);
    }
    if !in_path("sudo") {
        bail!("root is needed to {reason}, and there is no sudo: run this as root");
    }
    say!("sudo: root is needed to {reason}");
    let mut command = Command::new("sudo");
    command.args(["--", "env"]);
    // `env` takes the last value of a name: what is given goes behind.
    let kept = KEPT.iter().filter_map(|name| Some((*name, env::var_os(name)?)));
    let given = variables.iter().map(|(name, value)| (*name, (*value).to_owned()));
    for (name, value) in kept.chain(given) {
        let mut assignment = OsString::from(name);
        assignment.push("=");
        assignment.push(value);
        command.arg(assignment);
    }
    command.arg(program);
    Ok(command)
}

/// Whether this runs as root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Lets Ctrl-C end the program that is being waited for and not this one, which
/// has to clean up behind it.
pub fn outlive_interrupts() -> Result<()> {
    extern "C" fn nothing(_signal: i32) {}
    // A handler, not SIG_IGN: the programs started from here do not inherit it.
    // SAFETY: the handler does nothing, so it is async-signal-safe.
    unsafe { signal(Signal::SIGINT, SigHandler::Handler(nothing)) }
        .context("cannot set the handler for Ctrl-C")?;
    Ok(())
}

/// Whether a program of that name is in PATH.
pub fn in_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// The command as a message names it: program and first arguments, without what
/// [`as_root`] puts in front.
fn name(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut words: Vec<_> = iter::once(program.file_name().unwrap_or_default())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect();
    if words[0] == "sudo" {
        let assignments = |word: &str| word == "--" || word == "env" || word.contains('=');
        let program = words.iter().skip(1).position(|word| !assignments(word));
        words.drain(..program.map_or(0, |program| program + 1));
    }
    words.truncate(5);
    format!("`{}`", words.join(" "))
}

fn cannot_start(command: &Command, error: std::io::Error) -> anyhow::Error {
    let program = command.get_program().to_string_lossy();
    match error.kind() {
        ErrorKind::NotFound => anyhow::anyhow!("{program} is not installed"),
        _ => anyhow::anyhow!("cannot start {program}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that messages name what was run, and not how root was asked.
    #[test]
    fn names_commands() {
        let mut direct = Command::new("/usr/bin/apt-get");
        assert_eq!(name(direct.arg("update")), "`apt-get update`");
        let mut as_root = Command::new("sudo");
        as_root.args(["--", "env", "PATH=/bin", "A=b", "chown", "-R", "1", "x=y"]);
        assert_eq!(name(&as_root), "`chown -R 1 x=y`");
        let mut long = Command::new("cargo");
        assert_eq!(name(long.args(["a", "b", "c", "d", "e"])), "`cargo a b c d`");
    }
}
