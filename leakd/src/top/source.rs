//! Where the figures come from.

use std::path::{Path, PathBuf};

use crate::client::{Client, ClientError};
use crate::protocol::{Answer, Ask};

/// Somebody who answers questions: the daemon, or leakd's core in this process.
pub trait Source: Send {
    /// Asks, and waits for the answer. A refusal is an answer, too.
    ///
    /// # Errors
    /// If nobody answers, as a line for a person. It may be asked again.
    fn ask(&mut self, ask: Ask) -> Result<Answer, String>;
}

/// The daemon; connects again by itself after it has gone.
#[derive(Debug)]
pub struct Daemon {
    path: PathBuf,
    client: Option<Client>,
}

impl Daemon {
    /// Connects.
    ///
    /// # Errors
    /// If there is no daemon, or we may not ask it.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        Ok(Self { path: path.to_owned(), client: Some(Client::connect(path)?) })
    }
}

impl Source for Daemon {
    fn ask(&mut self, ask: Ask) -> Result<Answer, String> {
        // Not kept if it fails: half an answer may be in it.
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(&self.path).map_err(|error| error.to_string())?,
        };
        match client.ask(ask) {
            Ok(answer) => {
                self.client = Some(client);
                Ok(answer)
            }
            Err(ClientError::Refused(failure)) => {
                self.client = Some(client);
                Ok(Answer::Error(failure))
            }
            Err(error) => Err(error.to_string()),
        }
    }
}
