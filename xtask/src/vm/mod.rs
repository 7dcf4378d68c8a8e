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
//! | `qemu` | the emulator, a newer one than Debian 12's |
//! | `machine` | boots, runs one command, ends |
//! | `queue` | several machines, side by side |
//! | `suite` | the tests as such a command |
//! | `left_out` | tests that cannot run there, and why |

pub mod archive;
mod headers;
mod initramfs;
mod kernel;
mod left_out;
mod machine;
mod module;
mod qemu;
mod queue;
mod share;
mod suite;

use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{SigHandler, Signal, signal};

use crate::process::say;
use crate::toolchain;
use archive::Image;
use initramfs::quote;
use machine::{Accelerator, Job, Tools};
use qemu::Qemu;
use suite::{PARTS, Suite};

/// Debian packages that it takes beside the emulator and the server of the files.
const PACKAGES: [&str; 4] = ["busybox-static", "cpio", "util-linux", "xz-utils"];
/// What for.
const REASON: &str = "run other kernels in virtual machines";

/// The status of tests of which some passed only when they were run once more, alone.
const PASSED_ALONE: u8 = 3;
// Exit statuses beside the command's own; 124 as timeout(1) has it.
const TIMED_OUT: u8 = 124;
const LOST: u8 = 125;
const INTERRUPTED: u8 = 130;

/// Machines in which tests run side by side: as a rule one that traces processes and
/// one that traces the kernel, whose tests run one at a time and leave room.
const AT_ONCE: usize = 2;

/// What is asked for beside kernels and a command.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// For how long each machine may run.
    pub limit: Duration,
    /// For how long all of them may.
    pub within: Option<Duration>,
    /// The command gets the module of the tests, too.
    pub with_module: bool,
}

/// Runs a command, or the tests if there is none, on each of the kernels; gives
/// one status for all of them (see [`queue`]).
pub fn run(names: &[String], command: &[String], options: Options) -> Result<u8> {
    let Options { limit, within, with_module } = options;
    let kernels = kernel::chosen(names)?;
    toolchain::apt::ensure(&PACKAGES, &[], REASON)?;
    let with_module = with_module || command.is_empty();
    if with_module {
        toolchain::apt::ensure(&module::PACKAGES, &[], "build the kernel module of the tests")?;
    }
    archive::clean(&archive::cache()?)?;
    let images = kernels
        .iter()
        .map(|kernel| Ok((kernel.name, archive::ensure(*kernel, with_module)?)))
        .collect::<Result<Vec<_>>>()?;
    let (accelerator, why) = Accelerator::choose();
    let tools = Tools {
        qemu: Qemu::ensure(accelerator == Accelerator::Emulation)?,
        server: share::server()?,
        accelerator,
    };
    let suite = if command.is_empty() { Some(Suite::prepare()?) } else { None };
    let with = match accelerator {
        Accelerator::Kvm => "KVM",
        Accelerator::Emulation => "emulation",
    };
    say!("virtual machines run by {with}: {why}");
    end_on_signals()?;

    // A command of the user's runs on one kernel after the other: it may print
    // anything. Lines of tests can be told apart.
    let at_once = if suite.is_some() { AT_ONCE } else { 1 };
    let are_tests = suite.is_some();
    let job = |name: String, image: &Image, with_witness, script: String| -> Result<Job> {
        let mut variable = String::new();
        if with_witness {
            let module = quote(&module::build(image)?.to_string_lossy());
            variable = format!("export {}={module}\n", module::VARIABLE);
        }
        let (image, script) = (image.clone(), variable + &script);
        Ok(Job { name, image, with_witness, script, limit, are_tests })
    };
    let again = accelerator == Accelerator::Emulation;
    let mut jobs = Vec::new();
    match &suite {
        Some(suite) => {
            for (kernel, image) in &images {
                for part in &PARTS {
                    let name = format!("{kernel}{}", part.suffix);
                    jobs.push(job(name, image, part.of_kernel, suite.script(kernel, part, again))?);
                }
            }
        }
        None => {
            for (kernel, image) in &images {
                jobs.push(job((*kernel).to_owned(), image, with_module, script(command)?)?);
            }
        }
    }
    queue::run(&jobs, &tools, at_once, within)
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
