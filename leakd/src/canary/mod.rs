//! The canary: before leakd touches anybody's process, it traces a child of
//! its own that does a known pattern, and must see exactly that. From it, it
//! also learns what the probes cost on this machine.

pub mod child;
pub mod trap;

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use leakd_common::target::Counter;

use crate::bpf::link::{self, Link};
use crate::bpf::program_info;
use crate::engine::{Engine, EngineError, OwnProbe};
use child::Truth;
use trap::Trap;

/// What the canary found out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CanaryReport {
    /// A pair of malloc and free without probes, in nanoseconds.
    pub bare_pair_ns: f64,
    /// The same under trace.
    pub traced_pair_ns: f64,
    /// The same where sampling leaves the block out.
    pub left_out_pair_ns: f64,
    /// A trap alone, where the kernel emulates the probed instruction, in
    /// nanoseconds.
    pub emulated_trap_ns: f64,
    /// The same where the kernel single-steps it.
    pub single_stepped_trap_ns: f64,
    /// What leakd's programs took of it, if that was asked for and the kernel
    /// tells.
    pub programs: Option<ProgramTimes>,
}

/// For how long leakd's programs ran, as the kernel measures it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProgramTimes {
    /// In a pair of malloc and free that is recorded, in nanoseconds.
    pub traced_pair_ns: f64,
    /// In one that sampling leaves out.
    pub left_out_pair_ns: f64,
}

impl CanaryReport {
    /// What the probes add to one pair of malloc and free, in nanoseconds.
    pub fn added_ns(&self) -> f64 {
        (self.traced_pair_ns - self.bare_pair_ns).max(0.0)
    }

    /// What they add where sampling leaves the block out, in nanoseconds.
    pub fn added_left_out_ns(&self) -> f64 {
        (self.left_out_pair_ns - self.bare_pair_ns).max(0.0)
    }
}

/// Why leakd refuses to trace.
#[derive(Debug, thiserror::Error)]
pub enum CanaryError {
    /// The engine cannot even trace its own child.
    #[error("the canary cannot be traced: {0}")]
    Engine(#[from] EngineError),
    /// The child could not be run or spoken to.
    #[error("the canary cannot be run: {0}")]
    Child(#[from] io::Error),
    /// The probes killed it.
    #[error(
        "the canary was killed by signal {0} when it was probed: this kernel would kill \
         processes under seccomp (containers) as well, so nothing is traced; \
         a kernel from 6.14 on has this mended"
    )]
    Killed(i32),
    /// It saw something else than what happened.
    #[error(
        "the canary was not seen right, so reports could not be trusted: {what} is {seen}, \
         but was {truth}; `leakctl doctor` tells more"
    )]
    Wrong {
        /// The figure.
        what: &'static str,
        /// What the probes saw.
        seen: u64,
        /// What happened.
        truth: u64,
    },
}

struct Canary {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Canary {
    fn start() -> io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg(child::COMMAND).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(Stdio::null());
        // SAFETY: prctl(2) with integers is safe between fork and exec.
        unsafe {
            command.pre_exec(|| {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0 {
                    Ok(())
                } else {
                    Err(io::Error::last_os_error())
                }
            });
        }
        let mut child = command.spawn()?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut canary = Self { child, stdin, stdout: BufReader::new(stdout) };
        match canary.line()?.as_str() {
            "ready" | "unfiltered" => Ok(canary),
            other => Err(io::Error::other(format!("it said {other:?}"))),
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// Gives an order and waits for the answer.
    fn order(&mut self, order: u8) -> Result<String, CanaryError> {
        let sent = match &mut self.stdin {
            Some(stdin) => stdin.write_all(&[order]),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        let line = sent.and_then(|()| self.line());
        match line {
            Ok(line) if !line.is_empty() => Ok(line),
            other => {
                drop(self.stdin.take());
                if let Some(signal) = self.child.wait()?.signal() {
                    return Err(CanaryError::Killed(signal));
                }
                Err(other.err().unwrap_or_else(|| io::Error::other("it ended early")).into())
            }
        }
    }

    /// Nanoseconds of each thing that it does upon an order.
    fn measure(&mut self, order: u8) -> Result<f64, CanaryError> {
        let picoseconds: u64 =
            self.order(order)?.parse().map_err(|_| io::Error::other("no number"))?;
        Ok(picoseconds as f64 / 1000.0)
    }

    fn pair(&mut self) -> Result<f64, CanaryError> {
        self.measure(b'm')
    }

    /// What a trap costs; its function is probed until the link goes.
    fn trap(&mut self, probe: &OwnProbe, trap: Trap) -> Result<(f64, Link), CanaryError> {
        let bare = self.measure(trap.order())?;
        let link = probe.put_in(trap.function() as usize as u64, self.child.id())?;
        let probed = self.measure(trap.order())?;
        Ok(((probed - bare).max(0.0), link))
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // Our own child; it may have gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Traces the canary; it must be seen exactly.
pub fn check(engine: &mut Engine) -> Result<CanaryReport, CanaryError> {
    check_as(engine, false)
}

/// The same; also finds out for how long the programs run.
pub fn check_and_time(engine: &mut Engine) -> Result<CanaryReport, CanaryError> {
    check_as(engine, true)
}

fn check_as(engine: &mut Engine, with_programs: bool) -> Result<CanaryReport, CanaryError> {
    let mut canary = Canary::start()?;
    let probe = engine.own_probe()?;
    let (emulated_trap_ns, emulated) = canary.trap(&probe, Trap::Emulated)?;
    let (single_stepped_trap_ns, single_stepped) = canary.trap(&probe, Trap::SingleStepped)?;
    // Together: the kernel has us wait for each.
    link::close_all([emulated, single_stepped]);
    let bare_pair_ns = canary.pair()?;
    let slot = engine.attach_canary(canary.child.id())?;
    let seen = observe(engine, slot, &mut canary, with_programs);
    engine.detach(slot);
    let Observed { traced_pair_ns, left_out_pair_ns, programs } = seen?;
    Ok(CanaryReport {
        bare_pair_ns,
        traced_pair_ns,
        left_out_pair_ns,
        emulated_trap_ns,
        single_stepped_trap_ns,
        programs,
    })
}

/// What was measured under trace.
struct Observed {
    traced_pair_ns: f64,
    left_out_pair_ns: f64,
    programs: Option<ProgramTimes>,
}

fn observe(
    engine: &mut Engine,
    slot: u16,
    canary: &mut Canary,
    with_programs: bool,
) -> Result<Observed, CanaryError> {
    canary.order(b'p')?;
    let target = engine.target(slot).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let look = engine.look(target, Some(Duration::ZERO))?;
    let outstanding =
        |count: fn(&leakd_common::site::Site) -> u64| look.sites.values().map(count).sum();
    for (what, seen, truth) in [
        ("allocations", look.counters.get(Counter::Inserted), Truth::ALLOCATIONS),
        ("outstanding blocks", outstanding(|site| site.outstanding_blocks()), Truth::BLOCKS),
        ("outstanding bytes", outstanding(|site| site.outstanding_bytes()), Truth::BYTES),
        ("failed calls", look.counters.get(Counter::Failed), Truth::FAILED),
        ("frees of unknown blocks", look.counters.get(Counter::UnknownFrees), 0),
    ] {
        if seen != truth {
            return Err(CanaryError::Wrong { what, seen, truth });
        }
    }
    let traced_pair_ns = canary.pair()?;
    let recorded = |canary: &mut Canary| program_time(engine, slot, canary, Counter::Inserted);
    let traced_programs = if with_programs { recorded(canary)? } else { None };
    // The pairs are small: as good as none of them is sampled.
    engine.set_sample_bytes(slot, u64::MAX)?;
    let left_out_pair_ns = canary.pair()?;
    let programs = match traced_programs {
        Some(traced_pair_ns) => program_time(engine, slot, canary, Counter::SampledOut)?
            .map(|left_out_pair_ns| ProgramTimes { traced_pair_ns, left_out_pair_ns }),
        None => None,
    };
    Ok(Observed { traced_pair_ns, left_out_pair_ns, programs })
}

/// For how many nanoseconds the programs run in a pair, each of which moves
/// this counter by one. `None`: the kernel does not tell.
fn program_time(
    engine: &Engine,
    slot: u16,
    canary: &mut Canary,
    counter: Counter,
) -> Result<Option<f64>, CanaryError> {
    let Ok(statistics) = program_info::take_statistics() else { return Ok(None) };
    let read = || -> io::Result<(u64, u64)> {
        let target = engine.target(slot).ok_or(io::ErrorKind::NotFound)?;
        Ok((engine.program_time_ns()?, engine.counters(target)?.get(counter)))
    };
    let before = read()?;
    canary.pair()?;
    let after = read()?;
    drop(statistics);
    let pairs = after.1.saturating_sub(before.1);
    Ok((pairs > 0).then(|| after.0.saturating_sub(before.0) as f64 / pairs as f64))
}
