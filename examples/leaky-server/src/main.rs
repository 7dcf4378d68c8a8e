//! A small server with three known leaks among honest traffic: something to
//! try leakd on.
//!
//! It keeps notes for its users, over TCP on the loopback interface, one thread
//! for each connection; `request.rs` has the protocol. It makes its own traffic.
//!
//! **These three leak:**
//!
//! | function | what | how |
//! |---|---|---|
//! | `session::Sessions::open` | sessions | nothing ever expires one |
//! | `body::receive_body` | request bodies | not freed where a note is refused |
//! | `metrics::Metrics::count_path` | counters | one for each path ever asked for |
//!
//! **These do not,** though they hold memory too: `cache::Cache::insert` keeps
//! a fixed number of notes, `config::load_config` keeps its settings for good,
//! `request::read_line` and `request::render_reply` give back what they take
//! within a request.

mod body;
mod cache;
mod config;
mod metrics;
mod request;
mod session;
mod traffic;

use std::env;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::thread;

/// What all connections share.
#[derive(Debug)]
struct Server {
    config: config::Config,
    sessions: session::Sessions,
    cache: cache::Cache,
    metrics: metrics::Metrics,
}

const USAGE: &str = "usage: leaky-server [--until-eof] [--requests-per-second N]";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("leaky-server: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> io::Result<()> {
    let mut until_eof = false;
    let mut rate = 600;
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let number = |text: Option<String>| text?.parse().ok().filter(|&rate| rate > 0);
        match argument.as_str() {
            "--until-eof" => until_eof = true,
            "--requests-per-second" => {
                rate = number(arguments.next()).ok_or_else(|| io::Error::other(USAGE))?;
            }
            _ => return Err(io::Error::other(USAGE)),
        }
    }
    let config = config::load_config();
    let server = Arc::new(Server {
        cache: cache::Cache::new(config.cached_notes()),
        config,
        sessions: session::Sessions::default(),
        metrics: metrics::Metrics::default(),
    });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    spawn("traffic", move || traffic::generate(address, rate))?;
    if until_eof {
        // For whoever starts this program: it ends when they do.
        spawn("until-eof", || {
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            process::exit(0)
        })?;
    }
    let mut output = io::stdout().lock();
    writeln!(output, "leaky-server: process {}, {address}, ready", process::id())?;
    output.flush()?;
    for connection in listener.incoming() {
        let (connection, server) = (connection?, Arc::clone(&server));
        spawn("connection", move || {
            // A client that goes away ends its connection and nothing else.
            let _ = request::serve(&server, connection);
        })?;
    }
    Ok(())
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn(body)?;
    Ok(())
}

/// Reads exactly `length` bytes into a buffer of that size.
fn read_exactly(stream: &mut impl Read, length: usize) -> io::Result<Box<[u8]>> {
    let mut buffer = vec![0; length].into_boxed_slice();
    stream.read_exact(&mut buffer)?;
    Ok(buffer)
}
