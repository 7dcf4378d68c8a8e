//! A postgres server process under pgbench.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::postgres::{Installed, Postgres};
use super::{Running, Sample, Workload};
use crate::child::{Ending, in_path, until};
use crate::tracer::{Way, Wrapped};

const PATIENCE: Duration = Duration::from_secs(30);

/// The server process of one client, `pgbench -c1 -S`.
#[derive(Clone, Copy, Debug)]
pub struct Pgbench;

impl Workload for Pgbench {
    fn name(&self) -> &'static str {
        "postgres under pgbench"
    }

    fn unit(&self) -> &'static str {
        "transactions"
    }

    fn latency_of(&self) -> Option<&'static str> {
        Some("a transaction")
    }

    fn missing(&self) -> Option<String> {
        (Installed::find().is_none() || in_path("pgbench").is_none())
            .then(|| "postgres or pgbench is not installed".to_owned())
    }

    fn unfit(&self, way: Way) -> Option<&'static str> {
        (way == Way::Wrap).then_some("would trace every process of the server, from its start")
    }

    fn start(&mut self, _wrapped: &Wrapped) -> Result<Box<dyn Running>> {
        let installed = Installed::find().context("postgres is not installed")?;
        let server = Postgres::start(&installed)?;
        let mut make = server.client(&installed, "pgbench");
        make.args(["--initialize", "--quiet", "postgres"]);
        let status = Ending::start(&mut make)?.0.wait()?;
        ensure!(status.success(), "pgbench --initialize failed ({status})");

        let mut command = server.client(&installed, "pgbench");
        command.args(["-c1", "-S", "-T86400", "--log", "--log-prefix=log", "postgres"]);
        let load = Ending::start(&mut command)?;
        let log = server.directory().join(format!("log.{}", load.0.id()));
        let mut backend = None;
        until("pgbench works", PATIENCE, || {
            backend = server.backend();
            Ok(backend.is_some() && fs::metadata(&log).is_ok_and(|log| log.len() > 0))
        })?;
        let backend = backend.context("no server process")?;
        Ok(Box::new(RunningPgbench { _load: load, _server: server, backend, log }))
    }
}

/// Dropped in this order: the client first.
#[derive(Debug)]
struct RunningPgbench {
    _load: Ending,
    _server: Postgres,
    backend: u32,
    /// A line for each transaction.
    log: PathBuf,
}

impl Running for RunningPgbench {
    fn pid(&self) -> u32 {
        self.backend
    }

    fn measure(&mut self, _case: usize, duration: Duration) -> Result<Sample> {
        let mut log = File::open(&self.log)?;
        log.seek(SeekFrom::End(0))?;
        let start = Instant::now();
        thread::sleep(duration);
        let elapsed = start.elapsed();
        let mut text = String::new();
        log.read_to_string(&mut text)?;
        // client, transaction, its time in us, script, when it ended (s, us). The
        // first and last line may be parts of lines: pgbench writes by the block.
        let times = text.lines().skip(1).filter_map(|line| line.split(' ').nth(2)?.parse().ok());
        let mut times: Vec<f64> = times.collect();
        ensure!(times.len() > 10, "pgbench made only {} transactions", times.len());
        times.sort_unstable_by(f64::total_cmp);
        let at = |percent: usize| Some(times[times.len() * percent / 100] * 1e3);
        Ok(Sample {
            throughput: times.len() as f64 / elapsed.as_secs_f64(),
            p50: at(50),
            p99: at(99),
        })
    }
}
