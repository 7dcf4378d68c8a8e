//! One client, within its bounds: what it sends is limited in size and time,
//! what it does not take ends it.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::broadcast;
use tokio::time::{Instant, timeout, timeout_at};

use super::peer::Peer;
use crate::daemon::Handle;
use crate::protocol::{
    ANSWER_LIMIT, Answer, Ask, ErrorCode, Failure, REQUEST_LIMIT, Reply, Request, RequestError,
};

/// From a request's first byte to its last.
const WHOLE: Duration = Duration::from_secs(10);
/// Without any request.
const SILENCE: Duration = Duration::from_secs(600);
/// For the client to take an answer.
const TAKEN: Duration = Duration::from_secs(10);
/// Between two signs of life to a client that watches.
const IDLE: Duration = Duration::from_secs(15);

/// What a client is served with.
#[derive(Debug)]
pub struct Connection {
    /// Who it is.
    pub peer: Peer,
    /// Whether it may attach, detach and set.
    pub may_change: bool,
    /// Whom to ask.
    pub core: Handle,
}

/// Why a connection ends.
struct End;

impl Connection {
    /// Serves the client until it goes or breaks a rule.
    pub async fn serve(self, stream: UnixStream) {
        let (reader, writer) = stream.into_split();
        let (mut lines, mut writer) = (Lines::new(reader), writer);
        loop {
            let line = match lines.next().await {
                Ok(Some(line)) => line,
                Ok(None) => return,
                Err(failure) => {
                    // The client has broken a rule: told, and out.
                    let _ = send(&mut writer, &Reply::new(None, Answer::Error(failure))).await;
                    return;
                }
            };
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            if self.handle(&line, &mut writer).await.is_err() {
                return;
            }
        }
    }

    async fn handle(&self, line: &[u8], writer: &mut OwnedWriteHalf) -> Result<(), End> {
        let request = match Request::parse(line) {
            Ok(request) => request,
            Err((id, error)) => {
                let code = match error {
                    RequestError::Version(_) => ErrorCode::Version,
                    RequestError::Wrong(_) => ErrorCode::BadRequest,
                };
                let failure = Failure { code, message: error.to_string() };
                return send(writer, &Reply::new(id, Answer::Error(failure))).await;
            }
        };
        if request.ask.changes() {
            if !self.may_change {
                tracing::warn!(
                    uid = self.peer.uid,
                    pid = self.peer.pid,
                    "refused: {:?}",
                    request.ask
                );
                let failure = Failure {
                    code: ErrorCode::Forbidden,
                    message: "only root and members of `admin_group` may do that".to_owned(),
                };
                return send(writer, &Reply::new(request.id, Answer::Error(failure))).await;
            }
            tracing::info!(uid = self.peer.uid, pid = self.peer.pid, "asked: {:?}", request.ask);
        }
        // Before the question: nothing that happens after it may be missed.
        let events = (request.ask == Ask::Watch {}).then(|| self.core.events());
        let answer = self.ask(request.ask).await;
        send(writer, &Reply::new(request.id.clone(), answer)).await?;
        match events {
            None => Ok(()),
            Some(mut events) => loop {
                let answer = match timeout(IDLE, events.recv()).await {
                    Err(_) => Answer::Idle {},
                    Ok(Ok(event)) => Answer::Event { event },
                    Ok(Err(broadcast::error::RecvError::Lagged(count))) => Answer::Missed { count },
                    Ok(Err(broadcast::error::RecvError::Closed)) => return Err(End),
                };
                send(writer, &Reply::new(request.id.clone(), answer)).await?;
            },
        }
    }

    async fn ask(&self, ask: Ask) -> Answer {
        let ended = || {
            Answer::Error(Failure {
                code: ErrorCode::Internal,
                message: "the daemon is ending".to_owned(),
            })
        };
        self.core.ask(ask).await.unwrap_or_else(ended)
    }
}

/// Writes an answer; the client must take it in time.
async fn send(writer: &mut OwnedWriteHalf, reply: &Reply) -> Result<(), End> {
    let mut line = serde_json::to_vec(reply).map_err(|_| End)?;
    if line.len() > ANSWER_LIMIT {
        let failure = Failure {
            code: ErrorCode::TooLarge,
            message: "the answer would be larger than 32 MiB: ask for less (`top`, `limit`)".into(),
        };
        line = serde_json::to_vec(&Reply::new(reply.id.clone(), Answer::Error(failure)))
            .map_err(|_| End)?;
    }
    line.push(b'\n');
    match timeout(TAKEN, writer.write_all(&line)).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(End),
    }
}

/// The lines that a client sends.
struct Lines {
    reader: OwnedReadHalf,
    buffer: Vec<u8>,
    /// Where the search for the line's end goes on.
    searched: usize,
}

impl Lines {
    fn new(reader: OwnedReadHalf) -> Self {
        Self { reader, buffer: Vec::new(), searched: 0 }
    }

    /// The next line, or what there is before the end; `None`: the client has
    /// gone, or has been silent for too long.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let mut deadline = None;
        loop {
            let found = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
            if let Some(at) = found {
                let rest = self.buffer.split_off(self.searched + at + 1);
                let line = std::mem::replace(&mut self.buffer, rest);
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() >= REQUEST_LIMIT {
                return Err(Failure {
                    code: ErrorCode::TooLarge,
                    message: "a request has at most 64 KiB".to_owned(),
                });
            }
            let now = Instant::now();
            let until = if self.buffer.is_empty() {
                now + SILENCE
            } else {
                *deadline.get_or_insert(now + WHOLE)
            };
            let mut chunk = [0u8; 4096];
            let room = chunk.len().min(REQUEST_LIMIT - self.buffer.len());
            match timeout_at(until, self.reader.read(&mut chunk[..room])).await {
                Ok(Ok(0)) if self.buffer.is_empty() => return Ok(None),
                Ok(Ok(0)) => {
                    self.searched = 0;
                    return Ok(Some(std::mem::take(&mut self.buffer)));
                }
                Ok(Ok(count)) => self.buffer.extend_from_slice(&chunk[..count]),
                Ok(Err(_)) => return Ok(None),
                Err(_) if self.buffer.is_empty() => return Ok(None),
                Err(_) => {
                    return Err(Failure {
                        code: ErrorCode::BadRequest,
                        message: "the request was not whole within 10 seconds".to_owned(),
                    });
                }
            }
        }
    }
}
