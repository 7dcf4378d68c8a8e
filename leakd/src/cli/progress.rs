//! One line on a terminal that tells how the trace is doing.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use leakd_common::target::Counter;

use crate::canary::CanaryReport;
use crate::engine::Engine;
use crate::engine::target::Ended;
use crate::terminal;

/// Progress on standard error, if that is a terminal.
#[derive(Debug)]
pub struct Progress {
    shown: bool,
    terminal: bool,
    started: Instant,
    limit: Option<Duration>,
    pair_ns: f64,
    last: (Instant, u64),
}

impl Progress {
    /// `limit`: how long the trace will take, if that is known.
    pub fn new(limit: Option<Duration>, canary: &CanaryReport) -> Self {
        let now = Instant::now();
        Self {
            shown: false,
            terminal: io::stderr().is_terminal(),
            started: now,
            limit,
            pair_ns: canary.added_ns(),
            last: (now, 0),
        }
    }

    /// Says something once, in a line of its own.
    pub fn say(&mut self, text: &str) {
        self.clear();
        eprintln!("{}", terminal::safe(text));
    }

    /// Shows the state of the trace.
    pub fn show(&mut self, engine: &Engine) {
        if !self.terminal {
            return;
        }
        let (mut allocations, mut calls, mut running) = (0, 0, 0);
        let (mut bytes, mut blocks) = (0u64, 0u64);
        for target in engine.targets() {
            running += usize::from(target.ended() == Ended::Running);
            let Ok(look) = engine.look(target, None) else { continue };
            allocations += look.counters.allocations();
            calls += look.counters.allocations() + look.counters.frees();
            calls += look.counters.get(Counter::Failed);
            for site in look.sites.values() {
                bytes += site.outstanding_bytes();
                blocks += site.outstanding_blocks();
            }
        }
        let elapsed = self.last.0.elapsed().as_secs_f64();
        let rate =
            if elapsed > 0.0 { (calls - self.last.1.min(calls)) as f64 / elapsed } else { 0.0 };
        self.last = (Instant::now(), calls);
        // The canary's price is that of a pair of calls.
        let cost = rate * self.pair_ns / 2.0 / 1e9;
        let time = terminal::duration(
            self.started.elapsed().as_nanos() as u64 / 1_000_000_000 * 1_000_000_000,
        );
        let time = match self.limit {
            Some(limit) => {
                format!("{time} of {}", terminal::duration(limit.as_nanos() as u64))
            }
            None => time,
        };
        let line = format!(
            "{time}: {} allocations, {} in {} blocks held; {} calls/s, ~{} of a CPU{}",
            terminal::count(allocations),
            terminal::bytes(bytes),
            terminal::count(blocks),
            terminal::count(rate as u64),
            terminal::percent(cost),
            if running == 0 { " (ended)" } else { "" },
        );
        self.note(&line);
    }

    /// Shows a line in the place of the last one.
    pub fn note(&mut self, line: &str) {
        if !self.terminal {
            return;
        }
        let width = terminal::width(&io::stderr()).saturating_sub(1);
        let line = terminal::shorten_end(line, width);
        let mut stderr = io::stderr().lock();
        // A terminal that has gone ends the trace by SIGHUP, not here.
        let _ = write!(stderr, "\r\x1b[K{line}");
        let _ = stderr.flush();
        self.shown = true;
    }

    /// Takes the line away.
    pub fn clear(&mut self) {
        if self.shown {
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[K");
            let _ = stderr.flush();
            self.shown = false;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
