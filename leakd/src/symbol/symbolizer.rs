//! The symbolizer as the rest of leakd sees it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::address::{CodeAddress, Frame};
use super::names::{Template, unnamed_frame};
use super::worker::{Job, Key, PATIENCE, Shared};

/// Names code addresses on a thread of its own.
///
/// Bounded in the addresses that wait, the answers that are kept, the length
/// of a name and the time that one address may take. Dropping it ends the
/// thread.
#[derive(Debug)]
pub struct Symbolizer {
    shared: Arc<Shared>,
    patience: Duration,
}

impl Symbolizer {
    /// Starts the thread. If there is none to be had it is tried again with
    /// each request; until then frames stay unnamed.
    pub fn start() -> Self {
        Self::with_patience(PATIENCE)
    }

    /// As [`Self::start`], with the time that one address may take.
    pub(super) fn with_patience(patience: Duration) -> Self {
        let shared = Arc::new(Shared::default());
        shared.supervise(patience);
        Self { shared, patience }
    }

    /// Queues addresses to be named, while the process is still there, and
    /// does not wait. Gives back how many found room in the queue; the others
    /// can be asked for later.
    pub fn request(&self, addresses: Vec<CodeAddress>) -> usize {
        self.shared.supervise(self.patience);
        let jobs = addresses
            .into_iter()
            .filter_map(|address| Some(Job { key: Key::of(&address)?, address, reply: None }));
        self.shared.push(jobs)
    }

    /// Names addresses: for each its frames, innermost first, at least one.
    ///
    /// Blocks until all are named or `deadline` has passed; what is not named
    /// by then has its module and offset only.
    pub fn resolve(&self, addresses: &[CodeAddress], deadline: Duration) -> Vec<Vec<Frame>> {
        let end = Instant::now() + deadline;
        let found = self.find(addresses, end);
        addresses
            .iter()
            .map(|address| {
                let template = Key::of(address).and_then(|key| found.get(&key));
                match template {
                    Some(template) if !template.is_empty() => template
                        .iter()
                        .map(|frame| Frame { address: address.address(), ..frame.clone() })
                        .collect(),
                    _ => vec![unnamed_frame(address)],
                }
            })
            .collect()
    }

    fn find(&self, addresses: &[CodeAddress], end: Instant) -> HashMap<Key, Arc<Template>> {
        let mut found = HashMap::new();
        let mut missing: HashMap<Key, &CodeAddress> = HashMap::new();
        for address in addresses {
            let Some(key) = Key::of(address) else { continue };
            if found.contains_key(&key) || missing.contains_key(&key) {
                continue;
            }
            match self.shared.cached(&key) {
                Some(template) => drop(found.insert(key, template)),
                None => drop(missing.insert(key, address)),
            }
        }
        let (reply, answers) = mpsc::channel();
        let mut jobs: Vec<(Key, &CodeAddress)> = missing.into_iter().collect();
        let mut outstanding = jobs.len();
        while outstanding > 0 {
            let queued = self.shared.push(jobs.iter().map(|(key, address)| Job {
                key: *key,
                address: (*address).clone(),
                reply: Some(reply.clone()),
            }));
            jobs.drain(..queued);
            self.shared.supervise(self.patience);
            let now = Instant::now();
            if now >= end {
                break;
            }
            // Short, so that a worker that is stuck is noticed.
            let wait = (end - now).min(Duration::from_millis(50)).min(self.patience);
            match answers.recv_timeout(wait) {
                Ok((key, template)) => {
                    outstanding -= 1;
                    found.insert(key, template);
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
        found
    }

    #[cfg(test)]
    pub(super) fn level(&self, key: &crate::elf::FileIdentity) -> super::names::Level {
        self.shared.level(key)
    }
}

impl Drop for Symbolizer {
    fn drop(&mut self) {
        self.shared.stop();
    }
}
