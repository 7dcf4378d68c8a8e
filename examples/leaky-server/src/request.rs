//! The protocol: a line for each request, a line for each reply.
//!
//!     LOGIN user                    OK session greeting
//!     PUT /session/note length      OK length
//!     <length bytes>
//!     GET /session/note             OK user seconds note
//!
//! Whatever cannot be done is answered with `ERROR reason`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use crate::{Server, body};

/// Bytes that a line may have.
const LONGEST_LINE: u64 = 1024;

/// Answers the requests of a connection until it ends.
pub fn serve(server: &Server, connection: TcpStream) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut output = connection.try_clone()?;
    let mut input = BufReader::new(connection);
    loop {
        let line = read_line(&mut input)?;
        if line.is_empty() {
            return Ok(());
        }
        let reply = match handle(server, line.trim_end(), &mut input)? {
            Ok(text) => render_reply("OK", &text),
            Err(reason) => render_reply("ERROR", reason),
        };
        output.write_all(reply.as_bytes())?;
    }
}

fn handle(
    server: &Server,
    line: &str,
    input: &mut impl Read,
) -> io::Result<Result<String, &'static str>> {
    let words: Vec<&str> = line.split(' ').collect();
    server.metrics.count_verb(words[0]);
    Ok(match words[..] {
        ["LOGIN", user] => {
            let session = server.sessions.open(user);
            Ok(format!("{session} {}", server.config.greeting()))
        }
        ["GET", path] => get(server, path),
        ["PUT", path, length] => {
            let Some(length) = length.parse().ok().filter(|&it| it <= server.config.largest_note())
            else {
                return Err(io::Error::other("no valid length: what follows cannot be read"));
            };
            let body = body::receive_body(input, length)?;
            put(server, path, body).map(|()| length.to_string())
        }
        _ => Err("unknown request"),
    })
}

fn get(server: &Server, path: &str) -> Result<String, &'static str> {
    let (session, note) = parse_path(path).ok_or("no valid path")?;
    server.metrics.count_path(path);
    let (user, seconds) = server.sessions.visit(session, note).ok_or("no such session")?;
    let note = server.cache.find(note).ok_or("no such note")?;
    Ok(format!("{user} {seconds} {note}"))
}

fn put(server: &Server, path: &str, body: body::Body) -> Result<(), &'static str> {
    let Some((_, note)) = parse_path(path) else {
        body::release_body(body);
        return Err("no valid path");
    };
    body::store_body(body, |text| server.cache.insert(note, text))
}

/// Session and note of `/session/note`.
fn parse_path(path: &str) -> Option<(u64, u64)> {
    let (session, note) = path.strip_prefix('/')?.split_once('/')?;
    Some((session.parse().ok()?, note.parse().ok()?))
}

/// Reads a line of at most [`LONGEST_LINE`] bytes; empty: the connection ended.
#[inline(never)]
fn read_line(input: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    input.take(LONGEST_LINE).read_line(&mut line)?;
    Ok(line)
}

#[inline(never)]
fn render_reply(status: &str, text: &str) -> String {
    format!("{status} {}\n", text.replace('\n', " "))
}
