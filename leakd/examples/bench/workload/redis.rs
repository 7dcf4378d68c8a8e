//! redis-server under redis-benchmark.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::{Running, Sample, Workload};
use crate::child::{Ending, in_path, until};
use crate::tracer::Wrapped;

const SERVER: &str = "redis-server";
const LOAD: &str = "redis-benchmark";
const PATIENCE: Duration = Duration::from_secs(30);
/// Requests that tell how many make a measurement.
const TRIAL: u64 = 2000;

/// redis-server under `redis-benchmark -t set`, 8 clients, on a unix socket.
#[derive(Clone, Copy, Debug)]
pub struct Redis;

impl Workload for Redis {
    fn name(&self) -> &'static str {
        "redis under redis-benchmark"
    }

    fn unit(&self) -> &'static str {
        "SET commands"
    }

    fn latency_of(&self) -> Option<&'static str> {
        Some("a command")
    }

    fn missing(&self) -> Option<String> {
        let missing = [SERVER, LOAD].into_iter().find(|name| in_path(name).is_none())?;
        Some(format!("{missing} is not installed"))
    }

    fn start(&mut self, wrapped: &Wrapped) -> Result<Box<dyn Running>> {
        let directory = TempDir::with_prefix("redis-")?;
        let socket = directory.path().join("redis.sock");
        let mut command = wrapped.command(in_path(SERVER).context("it is not installed")?);
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no"]);
        command.arg("--unixsocket").arg(&socket).arg("--dir").arg(directory.path());
        let mut server = Ending::start_silent(&mut command)?;
        until("redis-server makes its socket", PATIENCE, || {
            ensure!(server.0.try_wait()?.is_none(), "{SERVER} ended at once");
            Ok(socket.exists())
        })?;
        Ok(Box::new(RunningRedis { server, socket, _directory: directory }))
    }
}

#[derive(Debug)]
struct RunningRedis {
    server: Ending,
    socket: PathBuf,
    _directory: TempDir,
}

impl RunningRedis {
    fn load(&self, requests: u64) -> Result<Sample> {
        let mut command = Command::new(LOAD);
        command.arg("-s").arg(&self.socket);
        command.args(["-t", "set", "-c", "8", "-r", "10000", "-d", "64", "--csv"]);
        command.args(["-n", &requests.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut load = Ending::start(&mut command)?;
        let output = std::io::read_to_string(load.0.stdout.take().context("a pipe")?)?;
        let status = load.0.wait()?;
        ensure!(status.success(), "{LOAD} failed ({status})");
        parse(&output).with_context(|| format!("{LOAD} said: {output}"))
    }
}

impl Running for RunningRedis {
    fn pid(&self) -> u32 {
        self.server.0.id()
    }

    fn measure(&mut self, _case: usize, duration: Duration) -> Result<Sample> {
        let start = Instant::now();
        self.load(TRIAL)?;
        // With its start and end, so rather too few.
        let requests = duration.as_secs_f64() / start.elapsed().as_secs_f64() * TRIAL as f64;
        self.load((requests as u64).max(TRIAL))
    }
}

/// A heading and a line of values in quotes, latencies in ms.
fn parse(output: &str) -> Option<Sample> {
    let mut lines = output.lines().map(|line| {
        line.split(',').map(|word| word.trim_matches('"').to_owned()).collect::<Vec<_>>()
    });
    let heading = lines.find(|words| words.first().is_some_and(|word| word == "test"))?;
    let values = lines.next()?;
    let value = |name: &str| -> Option<f64> {
        values.get(heading.iter().position(|word| word == name)?)?.parse().ok()
    };
    Some(Sample {
        throughput: value("rps")?,
        p50: Some(value("p50_latency_ms")? * 1e6),
        p99: Some(value("p99_latency_ms")? * 1e6),
    })
}
