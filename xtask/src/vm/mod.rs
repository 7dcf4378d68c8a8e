//! `cargo xtask vm`: a command, or the tests, on other kernels.
//!
//! | file | what it does |
//! |---|---|
//! | `kernel` | which kernels there are |
//! | `archive` | gets them from Debian, into a cache |
//! | `headers` | what modules for them are built with, likewise |
//! | `module` | a module that leaks, for the tests |
//! | `initramfs`, `init.sh` | what is booted before the host's files are there |
//! | `share` | the host's files, read-only, for the virtual machine |
//! | `machine` | qemu: boots, runs one command, ends |
//! | `suite` | the tests as such a command |
//! | `left_out` | tests that cannot run there, and why |

mod archive;
mod headers;
mod initramfs;
mod kernel;
mod left_out;
mod machine;
mod module;
mod share;
mod suite;

use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{SigHandler, Signal, signal};

use crate::process::say;
use crate::toolchain;
use initramfs::quote;
use machine::{Accelerator, Outcome};
use suite::Suite;

/// Debian packages that it takes.
const PACKAGES: [&str; 5] = ["busybox-static", "cpio", "qemu-system-x86", "util-linux", "xz-utils"];

// Exit statuses beside the command's own; 124 as timeout(1) has it.
const TIMED_OUT: u8 = 124;
const LOST: u8 = 125;
const INTERRUPTED: u8 = 130;

/// Runs a command, or the tests if there is none, on each of the kernels;
/// returns the first status that is not 0. `with_module`: the command gets the
/// module of the tests, too.
pub fn run(names: &[String], command: &[String], limit: Duration, with_module: bool) -> Result<u8> {
    let kernels = kernel::chosen(names)?;
    toolchain::apt::ensure(&PACKAGES, &[], "run other kernels in virtual machines")?;
    let with_module = with_module || command.is_empty();
    if with_module {
        toolchain::apt::ensure(&module::PACKAGES, &[], "build the kernel module of the tests")?;
    }
    machine::require_qemu()?;
    archive::clean()?;
    let images = kernels
        .iter()
        .map(|kernel| Ok((kernel.name, archive::ensure(*kernel, with_module)?)))
        .collect::<Result<Vec<_>>>()?;
    let suite = if command.is_empty() { Some(Suite::prepare()?) } else { None };
    let (accelerator, why) = Accelerator::choose();
    let with = match accelerator {
        Accelerator::Kvm => "KVM",
        Accelerator::Emulation => "emulation",
    };
    say!("virtual machines run by {with}: {why}");
    end_on_signals()?;

    let mut first = 0;
    for (name, image) in images {
        say!("kernel {name}: booting Linux {}", image.release);
        let mut script = match &suite {
            Some(suite) => suite.script(name),
            None => script(command)?,
        };
        if with_module {
            let module = quote(&module::build(&image)?.to_string_lossy());
            script.insert_str(0, &format!("export {}={module}\n", module::VARIABLE));
        }
        let begin = Instant::now();
        let outcome = machine::run(&image, &script, accelerator, limit)?;
        let seconds = begin.elapsed().as_secs();
        let status = match outcome {
            Outcome::Ended(status) => {
                say!("kernel {name}: exit status {status}, after {seconds} s");
                status
            }
            Outcome::TimedOut => {
                say!("kernel {name}: not done after {} s, ended", limit.as_secs());
                TIMED_OUT
            }
            Outcome::Lost(why) => {
                say!("kernel {name}: no result after {seconds} s: {why}");
                LOST
            }
            Outcome::Interrupted => {
                say!("kernel {name}: interrupted");
                return Ok(INTERRUPTED);
            }
        };
        if first == 0 {
            first = status;
        }
    }
    Ok(first)
}

/// The user's command as a script: one word is a script already.
fn script(command: &[String]) -> Result<String> {
    let directory = env::current_dir().context("there is no current directory")?;
    let words: Vec<_> = match command {
        [script] => vec!["exec", "/bin/sh", "-c", script],
        words => ["exec"].into_iter().chain(words.iter().map(String::as_str)).collect(),
    };
    let words: Vec<_> = words.into_iter().map(quote).collect();
    let directory = quote(&directory.to_string_lossy());
    let path = quote(&env::var("PATH").unwrap_or_default());
    let words = words.join(" ");
    Ok(format!("export HOME=/root TERM=dumb PATH={path}\ncd {directory} || exit\n{words}\n"))
}

/// Set by Ctrl-C and the like.
static SIGNALLED: AtomicBool = AtomicBool::new(false);

/// Has signals end the virtual machine first, and then this.
fn end_on_signals() -> Result<()> {
    extern "C" fn remember(_signal: i32) {
        SIGNALLED.store(true, Ordering::Relaxed);
    }
    for one in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler stores to an atomic, which is async-signal-safe.
        unsafe { signal(one, SigHandler::Handler(remember)) }
            .context("cannot set a handler for signals")?;
    }
    Ok(())
}

/// Whether a signal asks for the end.
fn interrupted() -> bool {
    SIGNALLED.load(Ordering::Relaxed)
}

/// Has the kernel end a program when the thread that starts it ends, also by
/// kill -9.
fn end_with_us(command: &mut Command) -> &mut Command {
    let us = nix::unistd::getpid();
    // SAFETY: prctl(2) and getppid(2) are plain system calls and may be made
    // between fork and exec.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
            // It may have ended before.
            if nix::unistd::getppid() != us {
                return Err(io::Error::other("the parent has ended"));
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that one word is a script, and that several are taken as they are.
    #[test]
    fn makes_scripts() {
        let of = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            let mut shell = Command::new("sh");
            shell.args(["-c", &script(&words).expect("a script")]);
            crate::process::output(&mut shell).expect("it runs")
        };
        assert_eq!(of(&["printf %s $((1 + 1)); printf %s \"a  b\""]), "2a  b");
        assert_eq!(of(&["printf", "%s,", "$HOME", "a  b"]), "$HOME,a  b,");
    }
}
