//! A client of the daemon, as leakctl uses it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::protocol::{ANSWER_LIMIT, Answer, Ask, Failure, Reply, Request, VERSION};

/// What is waited for, for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon.
    #[error(
        "no daemon answers on {}: start it with `systemctl start leakd`, or as root with `leakd`",
        .0.display()
    )]
    NoDaemon(PathBuf),
    /// A daemon, but not for us.
    #[error("not permitted to connect to {}: be root or a member of the group leakd", .0.display())]
    NotPermitted(PathBuf),
    /// The connection.
    #[error("the daemon on {}: {source}", path.display())]
    Connection {
        /// The socket.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It speaks otherwise.
    #[error(
        "the daemon gave an answer that this leakctl does not understand ({0}): is it older or newer?"
    )]
    Strange(String),
    /// It said no.
    #[error(transparent)]
    Refused(#[from] Failure),
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the daemon on this socket.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let owned = || path.to_owned();
        let stream = UnixStream::connect(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NoDaemon(owned())
            }
            io::ErrorKind::PermissionDenied => ClientError::NotPermitted(owned()),
            _ => ClientError::Connection { path: owned(), source },
        })?;
        let client = Self { path: owned(), stream: BufReader::new(stream) };
        client.set_patience(Some(PATIENCE))?;
        Ok(client)
    }

    /// The same; `None`: there is none, or not for us.
    pub fn connect_if_any(path: &Path) -> Result<Option<Self>, ClientError> {
        match Self::connect(path) {
            Err(ClientError::NoDaemon(_) | ClientError::NotPermitted(_)) => Ok(None),
            other => other.map(Some),
        }
    }

    /// How long an answer is waited for; `None`: for ever.
    pub fn set_patience(&self, patience: Option<Duration>) -> Result<(), ClientError> {
        let stream = self.stream.get_ref();
        stream
            .set_read_timeout(patience)
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
            .map_err(|source| self.broken(source))
    }

    /// Asks, and waits for the answer; a refusal is an error.
    pub fn ask(&mut self, ask: Ask) -> Result<Answer, ClientError> {
        let mut line = serde_json::to_vec(&Request::new(ask))
            .map_err(|error| ClientError::Strange(error.to_string()))?;
        line.push(b'\n');
        let written = self.stream.get_mut().write_all(&line);
        // A daemon that refuses a client writes before it has read.
        match self.next_answer() {
            Err(ClientError::Connection { .. }) if written.is_err() => {
                written.map_err(|source| self.broken(source))?;
                Err(ClientError::NoDaemon(self.path.clone()))
            }
            other => other,
        }
    }

    /// Waits for the next answer, for `watch`.
    pub fn next_answer(&mut self) -> Result<Answer, ClientError> {
        let mut line = Vec::new();
        (&mut self.stream)
            .take(ANSWER_LIMIT as u64 + 1)
            .read_until(b'\n', &mut line)
            .map_err(|source| self.broken(source))?;
        if line.is_empty() {
            return Err(self.broken(io::Error::other("it has hung up")));
        }
        let reply: Reply = serde_json::from_slice(&line)
            .map_err(|error| ClientError::Strange(error.to_string()))?;
        if reply.v != VERSION {
            return Err(ClientError::Strange(format!("version {}", reply.v)));
        }
        match reply.answer {
            Answer::Error(failure) => Err(ClientError::Refused(failure)),
            answer => Ok(answer),
        }
    }

    fn broken(&self, source: io::Error) -> ClientError {
        ClientError::Connection { path: self.path.clone(), source }
    }
}
