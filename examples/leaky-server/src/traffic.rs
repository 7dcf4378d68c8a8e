//! Users, so that the server has something to do.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Requests for each connection: then the user goes, and another one comes.
const VISIT: u64 = 60;

/// Makes requests of all kinds, at this rate, for as long as the server runs.
pub fn generate(server: SocketAddr, requests_per_second: u32) {
    let pause = Duration::from_secs(1) / requests_per_second;
    let mut next = Instant::now();
    for user in 0.. {
        if let Err(error) = visit(server, user, &mut next, pause) {
            eprintln!("leaky-server: traffic: {error}");
            thread::sleep(Duration::from_secs(1));
        }
    }
}

/// One user: logs in, writes notes, every eighth of them refused, reads some.
fn visit(server: SocketAddr, user: u64, next: &mut Instant, pause: Duration) -> io::Result<()> {
    let stream = TcpStream::connect(server)?;
    stream.set_nodelay(true)?;
    let mut replies = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    let mut session = String::new();
    let mut reply = String::new();
    for number in 0..VISIT {
        *next += pause;
        thread::sleep(next.saturating_duration_since(Instant::now()));
        let note = user * VISIT + number;
        if number % 20 == 0 {
            writeln!(stream, "LOGIN user-{user}")?;
        } else if number % 2 == 1 {
            let mut text = format!("note {note} of user {user} ").repeat(40).into_bytes();
            if number % 8 == 1 {
                text[0] = 0xff; // no text
            }
            writeln!(stream, "PUT /{session}/{note} {}", text.len())?;
            stream.write_all(&text)?;
        } else {
            writeln!(stream, "GET /{session}/{}", note - 1)?;
        }
        reply.clear();
        if replies.read_line(&mut reply)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if number % 20 == 0 {
            session = reply.split(' ').nth(1).unwrap_or_default().to_owned();
        }
    }
    Ok(())
}
