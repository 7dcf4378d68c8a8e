//! Machines side by side, within a time for all of them, and what became of each.

use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::machine::{self, Job, Outcome, Tools};
use super::{INTERRUPTED, LOST, PASSED_ALONE, TIMED_OUT, interrupted};
use crate::process::say;

/// Runs the jobs, so many at once, and gives one status for all. What is not done
/// `within` this time is ended, or not begun.
pub fn run(jobs: &[Job], tools: &Tools, at_once: usize, within: Option<Duration>) -> Result<u8> {
    let begin = Instant::now();
    let stolen = Stolen::now();
    let queue = Mutex::new(jobs.iter().enumerate());
    let statuses = Mutex::new(vec![None; jobs.len()]);
    let work = || -> Result<()> {
        while let Some((index, job)) = next(&queue) {
            let left = || within.map_or(job.limit, |within| within.saturating_sub(begin.elapsed()));
            if left().is_zero() {
                break;
            }
            let status = finish(job, tools, || job.limit.min(left()))?;
            lock(&statuses)[index] = Some((status, begin.elapsed()));
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|_| Err(anyhow!("a machine's thread panicked")))
        })
    })?;
    let statuses = lock(&statuses);
    if jobs.len() > 1 {
        for (job, status) in jobs.iter().zip(statuses.iter()) {
            say!("kernel {}: {}", job.name, in_words(*status, job.are_tests));
        }
        let taken = stolen.and_then(|before| Some(before.share(Stolen::now()?)));
        let taken = taken.map_or(String::new(), |share| {
            format!("; other machines of the host took {share:.0} % of the processors")
        });
        say!("all in {} s{taken}", begin.elapsed().as_secs());
    }
    Ok(of_all(jobs.iter().zip(statuses.iter()).map(|(job, status)| match status {
        Some((PASSED_ALONE, _)) if job.are_tests => 0,
        Some((status, _)) => *status,
        None => TIMED_OUT,
    })))
}

/// One status for several: the first that is a failure; else whether all was done.
fn of_all(statuses: impl Iterator<Item = u8> + Clone) -> u8 {
    let failed = statuses.clone().find(|status| ![0, TIMED_OUT].contains(status));
    failed.or_else(|| statuses.clone().find(|status| *status != 0)).unwrap_or(0)
}

fn in_words(status: Option<(u8, Duration)>, are_tests: bool) -> String {
    match status {
        Some((0, _)) => "passed".to_owned(),
        Some((PASSED_ALONE, _)) if are_tests => {
            "passed, some only once more, alone: see above".to_owned()
        }
        Some((TIMED_OUT, _)) => "NOT DONE: there was no more time".to_owned(),
        Some((LOST, _)) => "LOST".to_owned(),
        Some((INTERRUPTED, _)) => "interrupted".to_owned(),
        Some((status, _)) => format!("FAILED, status {status}"),
        None if interrupted() => "interrupted".to_owned(),
        None => "NOT BEGUN: there was no more time".to_owned(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The next one, unless a signal asks for the end.
fn next<T>(queue: &Mutex<impl Iterator<Item = T>>) -> Option<T> {
    if interrupted() { None } else { lock(queue).next() }
}

/// Runs a job, once more where the emulator was at fault, and says what became of
/// it; gives its exit status.
fn finish(job: &Job, tools: &Tools, limit: impl Fn() -> Duration) -> Result<u8> {
    /// The tests' own status if some fail.
    const FAILED: u8 = 1;
    let name = &job.name;
    say!("kernel {name}: booting Linux {}", job.image.release);
    let begin = Instant::now();
    let mut outcome = machine::run(job, tools, limit())?;
    if outcome == (Outcome::StaleCode { failed: false }) {
        say!("kernel {name}: the emulator ran code that the kernel had changed: once more");
        outcome = machine::run(job, tools, limit())?;
    }
    let seconds = begin.elapsed().as_secs();
    Ok(match outcome {
        Outcome::Ended(status) => {
            say!("kernel {name}: exit status {status}, after {seconds} s");
            status
        }
        Outcome::TimedOut { failed } => {
            say!("kernel {name}: not done after {seconds} s, ended");
            if failed { FAILED } else { TIMED_OUT }
        }
        Outcome::Lost(why) => {
            say!("kernel {name}: no result after {seconds} s: {why}");
            LOST
        }
        Outcome::StaleCode { failed } => {
            say!("kernel {name}: no result after {seconds} s: the emulator ran stale code");
            if failed { FAILED } else { LOST }
        }
        Outcome::Interrupted => {
            say!("kernel {name}: interrupted");
            INTERRUPTED
        }
    })
}

/// Time of all processors since the boot, and what the hypervisor gave to others of
/// it, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stolen {
    all: u64,
    stolen: u64,
}

impl Stolen {
    fn now() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/stat").ok()?)
    }

    /// user, nice, system, idle, iowait, irq, softirq, steal; the rest is in the
    /// first two as well.
    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Option<Vec<u64>> =
            line.split_whitespace().take(8).map(|word| word.parse().ok()).collect();
        let ticks = ticks.filter(|ticks| ticks.len() == 8)?;
        Some(Self { all: ticks.iter().sum(), stolen: ticks[7] })
    }

    /// What was stolen up to then, in percent.
    fn share(self, then: Self) -> f64 {
        let stolen = then.stolen.saturating_sub(self.stolen) as f64;
        100.0 * stolen / then.all.saturating_sub(self.all).max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a failure outranks what was not done, and that nothing else does.
    #[test]
    fn judges_all() {
        let of = |statuses: &[u8]| of_all(statuses.iter().copied());
        assert_eq!(of(&[0, 0]), 0);
        assert_eq!(of(&[0, TIMED_OUT, 0]), TIMED_OUT);
        assert_eq!(of(&[TIMED_OUT, 1]), 1);
        assert_eq!(of(&[TIMED_OUT, LOST, 1]), LOST);
    }

    /// Check that stolen time is read, and is no idle time.
    #[test]
    fn reads_stolen_time() {
        let one = Stolen::parse("cpu  10 0 10 60 0 0 0 20 5 5\ncpu0 1").expect("it is whole");
        assert_eq!(one, Stolen { all: 100, stolen: 20 });
        let other = Stolen { all: 200, stolen: 85 };
        assert!((one.share(other) - 65.0).abs() < 1e-9);
        assert_eq!(Stolen::parse("cpu  1 2 3"), None);
    }
}
