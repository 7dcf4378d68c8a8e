//! nginx, one worker, under wrk.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::{Running, Sample, Workload};
use crate::child::{Ending, in_path, until};
use crate::tracer::Wrapped;

/// What it is called.
pub const NAME: &str = "nginx under wrk";
/// Under valgrind it takes its time.
const PATIENCE: Duration = Duration::from_secs(30);

/// nginx, one worker, under `wrk -t1 -c16`.
#[derive(Clone, Copy, Debug)]
pub struct Nginx;

impl Workload for Nginx {
    fn name(&self) -> &'static str {
        NAME
    }

    fn unit(&self) -> &'static str {
        "requests"
    }

    fn latency_of(&self) -> Option<&'static str> {
        Some("a request")
    }

    fn missing(&self) -> Option<String> {
        let missing = ["nginx", "wrk"].into_iter().find(|name| in_path(name).is_none())?;
        Some(format!("{missing} is not installed"))
    }

    fn start(&mut self, wrapped: &Wrapped) -> Result<Box<dyn Running>> {
        let directory = TempDir::with_prefix("nginx-")?;
        let path = directory.path();
        // A port that is free now; wrk speaks no unix sockets.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let configuration = path.join("nginx.conf");
        fs::write(&configuration, configured(&path.display().to_string(), port))?;
        let mut command = wrapped.command(in_path("nginx").context("nginx is not installed")?);
        command.arg("-c").arg(&configuration).arg("-e").arg(path.join("log"));
        let said = path.join("said");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&said)?);
        let mut server = Ending::start(&mut command)?;
        until("nginx answers", PATIENCE, || {
            if let Some(status) = server.0.try_wait()? {
                let said = fs::read_to_string(&said).unwrap_or_default();
                bail!("nginx ended ({status}): {}", said.lines().next().unwrap_or_default());
            }
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())
        })?;
        Ok(Box::new(RunningNginx { server, port, _directory: directory }))
    }
}

/// One process, so that the server can be traced from its start, too.
fn configured(directory: &str, port: u16) -> String {
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {directory}/{kind};\n"))
        .concat();
    format!(
        "daemon off; master_process off; pid {directory}/pid; error_log {directory}/log;\n\
         events {{ worker_connections 64; }}\n\
         http {{ access_log off; keepalive_requests 1000000000;\n{temporary}\
         server {{ listen 127.0.0.1:{port}; return 200 'hello'; }} }}\n"
    )
}

#[derive(Debug)]
struct RunningNginx {
    server: Ending,
    port: u16,
    _directory: TempDir,
}

impl Running for RunningNginx {
    fn pid(&self) -> u32 {
        self.server.0.id()
    }

    fn measure(&mut self, _case: usize, duration: Duration) -> Result<Sample> {
        // It knows whole seconds only.
        let seconds = duration.as_secs().max(1);
        let mut command = Command::new("wrk");
        command.args(["-t1", "-c16", "--latency", &format!("-d{seconds}s")]);
        command.arg(format!("http://127.0.0.1:{}/", self.port));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut load = Ending::start(&mut command)?;
        let output = std::io::read_to_string(load.0.stdout.take().context("a pipe")?)?;
        let status = load.0.wait()?;
        ensure!(status.success(), "wrk failed ({status})");
        parse(&output).with_context(|| format!("wrk said: {output}"))
    }
}

fn parse(output: &str) -> Option<Sample> {
    let value = |key: &str| {
        let line = output.lines().find_map(|line| line.trim().strip_prefix(key))?;
        Some(line.trim().to_owned())
    };
    // Only whole answers count.
    if output.contains("Non-2xx") || output.contains("Socket errors") {
        return None;
    }
    Some(Sample {
        throughput: value("Requests/sec:")?.parse().ok()?,
        p50: nanoseconds(&value("50%")?),
        p99: nanoseconds(&value("99%")?),
    })
}

/// "101.00us", "1.20ms", "2.00s".
fn nanoseconds(text: &str) -> Option<f64> {
    let units = [("us", 1e3), ("ms", 1e6), ("s", 1e9)];
    let (number, factor) =
        units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    Some(number.parse::<f64>().ok()? * factor)
}
