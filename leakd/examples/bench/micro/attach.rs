//! How long it takes to attach to a running redis-server under load, and to
//! let go of it.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use leakd::engine::Engine;
use leakd::engine::target::SeenFrom;
use tempfile::TempDir;

use super::figure::{Figure, Goal};
use crate::child::in_path;
use crate::child::{Ending, tie};
use crate::tracer::leakctl;

const SERVER: &str = "redis-server";
const LOAD: &str = "redis-benchmark";
/// Attach and detach are to take no longer, in ms.
const LIMIT: Goal = Goal::AtMost(300.0);
/// How long it is traced each time.
const TRACED: Duration = Duration::from_millis(300);

/// redis-server and what keeps it busy.
#[derive(Debug)]
struct Redis {
    server: Ending,
    _load: Ending,
    _directory: TempDir,
}

impl Redis {
    fn start() -> Result<Self> {
        let directory = TempDir::with_prefix("leakd-bench-")?;
        let socket = directory.path().join("redis.sock");
        let mut server = Command::new(SERVER);
        server.args(["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no"]);
        server.arg("--unixsocket").arg(&socket).arg("--dir").arg(directory.path());
        let server = start(&mut server)?;
        let end = Instant::now() + Duration::from_secs(30);
        while !socket.exists() {
            ensure!(Instant::now() < end, "{SERVER} made no socket within 30 s");
            thread::sleep(Duration::from_millis(20));
        }
        let mut load = Command::new(LOAD);
        load.arg("-s").arg(&socket);
        load.args(["-l", "-q", "-c", "8", "-n", "100000", "-r", "10000", "-t", "set,lpush,sadd"]);
        let load = start(&mut load)?;
        thread::sleep(Duration::from_millis(500));
        Ok(Self { server, _load: load, _directory: directory })
    }
}

/// Starts a program that is to say nothing.
fn start(command: &mut Command) -> Result<Ending> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = tie(command).spawn();
    Ok(Ending(child.with_context(|| format!("cannot start {:?}", command.get_program()))?))
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Measures in `rounds` rounds.
pub fn run(engine: &mut Engine, rounds: u32) -> Result<Vec<Figure>> {
    if in_path(SERVER).is_none() || in_path(LOAD).is_none() {
        let why = format!("no {SERVER} with {LOAD}");
        return Ok(vec![
            Figure::missing("attach", LIMIT, why.clone()),
            Figure::missing("detach", LIMIT, why),
        ]);
    }
    let redis = Redis::start()?;
    let pid = redis.server.0.id();
    let (mut attach, mut out, mut detach, mut whole) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        eprint!("\rattach and detach: round {round} of {rounds} ");
        let start = Instant::now();
        let slot = engine.attach(pid, SeenFrom::Attach)?;
        attach.push(milliseconds(start.elapsed()));
        thread::sleep(TRACED);
        while let Some(announcement) = engine.try_next() {
            engine.handle(announcement);
        }
        let start = Instant::now();
        engine.stop_probes();
        out.push(milliseconds(start.elapsed()));
        engine.detach(slot);
        detach.push(milliseconds(start.elapsed()));

        const WATCHED: Duration = Duration::from_secs(1);
        let start = Instant::now();
        leakctl::watch(pid, WATCHED)?;
        whole.push(milliseconds(start.elapsed().saturating_sub(WATCHED)));
    }
    eprintln!();
    Ok(vec![
        Figure::new("attach", "ms", LIMIT, &attach),
        Figure::new("detach", "ms", LIMIT, &detach),
        Figure::new("until its probes are out", "ms", Goal::None, &out),
        Figure::new("leakctl attach, beyond --for", "ms", Goal::None, &whole),
    ])
}
