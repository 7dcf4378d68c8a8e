//! Programs of ours that obey: a line in, a line of numbers out.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Sample;
use crate::child::Ending;

/// A program that obeys commands on its standard input, until that is closed.
#[derive(Debug)]
pub struct Commanded {
    child: Ending,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Commanded {
    /// Starts it.
    pub fn start(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = Ending::start(command)?;
        let (Some(stdin), Some(stdout)) = (child.0.stdin.take(), child.0.stdout.take()) else {
            bail!("the program has no pipes");
        };
        Ok(Self { child, stdin: Some(stdin), stdout: BufReader::new(stdout) })
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// Has it do something; the numbers that it answers.
    pub fn order(&mut self, order: &str) -> Result<Vec<u64>> {
        self.begin(order)?;
        self.answer(order)
    }

    /// Has it do something, and does not wait for the answer.
    pub fn begin(&mut self, order: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("it was told to end")?;
        Ok(writeln!(stdin, "{order}")?)
    }

    /// Waits for the answer to an order.
    pub fn answer(&mut self, order: &str) -> Result<Vec<u64>> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            let status = self.child.0.wait()?;
            bail!("the traced program ended at `{order}` ({status})");
        }
        line.split_whitespace()
            .map(|word| word.parse().with_context(|| format!("it said {word:?} to `{order}`")))
            .collect()
    }

    /// Has it work, for an answer of four numbers: units of work, CPU time in ns, and
    /// two latencies in ns. A single program's rate is by its CPU time, traps
    /// included: what else the machine does is not in it.
    pub fn measure(&mut self, order: &str) -> Result<Sample> {
        let answer = self.order(order)?;
        let [units, cpu, p50, p99] = answer[..] else {
            bail!("it said {answer:?} to `{order}`");
        };
        Ok(Sample {
            throughput: units as f64 * 1e9 / cpu.max(1) as f64,
            p50: Some(p50 as f64),
            p99: Some(p99 as f64),
        })
    }

    /// Closes its standard input, and waits for its end.
    pub fn finish(&mut self, patience: Duration) -> Result<()> {
        self.stdin = None;
        self.child.wait(patience)
    }
}
