//! The thread that names addresses, and what it shares with those who wait.
//!
//! A file can make its reader slow or panic. A panic costs the worker its
//! blazesym, and the file one [`Level`]. A worker that has been busy with one
//! address for [`PATIENCE`] is given up: its place in the queue is taken by a
//! new worker, the file loses one level, and the old one ends itself when it
//! gets that far. At most [`GIVEN_UP`] such threads may be on their way at a
//! time; with that many, no file is read until one of them has ended.

use std::collections::{HashMap, VecDeque};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::address::{CodeAddress, Lookup};
use super::names::{Level, Names, Template};
use crate::elf::FileIdentity;

/// How long one address may take.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Threads that may be busy with what was given up.
const GIVEN_UP: usize = 3;
/// Addresses that may wait.
const QUEUE: usize = 256 << 10;
/// Answers that are kept, in bytes, in each of two generations.
const CACHE_BYTES: usize = 16 << 20;
/// Files whose level is remembered.
const LEVELS: usize = 4096;
/// Parsing recurses; untouched pages of a stack cost nothing.
const STACK_BYTES: usize = 64 << 20;
const THREAD_NAME: &str = "leakd-symbols";

/// What an answer is kept under: what its frames follow from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    File(FileIdentity, u64, Lookup),
    Jit(u32, u64, Lookup),
}

impl Key {
    /// The key for an address; `None` if there is nothing to look up.
    pub fn of(address: &CodeAddress) -> Option<Self> {
        match address {
            CodeAddress::File { object, offset, lookup, .. } => {
                Some(Self::File(*object.identity(), *offset, *lookup))
            }
            CodeAddress::Jit { pid, address, lookup } => Some(Self::Jit(*pid, *address, *lookup)),
            CodeAddress::Unmapped { .. } => None,
        }
    }

    fn object(&self) -> Option<FileIdentity> {
        match self {
            Self::File(object, _, _) => Some(*object),
            Self::Jit(..) => None,
        }
    }
}

/// One address to name, and who wants to know.
#[derive(Debug)]
pub struct Job {
    pub key: Key,
    pub address: CodeAddress,
    pub reply: Option<Sender<(Key, Arc<Template>)>>,
}

/// Answers in two generations: when the younger is full, the elder is dropped
/// and the younger takes its place. What is asked for stays.
#[derive(Debug, Default)]
pub struct Cache {
    young: HashMap<Key, Arc<Template>>,
    old: HashMap<Key, Arc<Template>>,
    young_bytes: usize,
}

impl Cache {
    pub fn get(&mut self, key: &Key) -> Option<Arc<Template>> {
        if let Some(found) = self.young.get(key) {
            return Some(found.clone());
        }
        let found = self.old.remove(key)?;
        self.insert(*key, found.clone());
        Some(found)
    }

    pub fn insert(&mut self, key: Key, template: Arc<Template>) {
        let size = weight(&template);
        if self.young_bytes.saturating_add(size) > CACHE_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += size;
        self.young.insert(key, template);
    }
}

fn weight(template: &Template) -> usize {
    let strings = |frame: &super::Frame| {
        [&frame.function, &frame.file, &frame.module, &frame.build_id]
            .into_iter()
            .flatten()
            .map(String::capacity)
            .sum::<usize>()
    };
    template.iter().map(|frame| size_of::<super::Frame>() + strings(frame)).sum::<usize>()
        + 2 * size_of::<Key>()
        + 64
}

#[derive(Debug)]
struct InProgress {
    since: Instant,
    job: Job,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Job>,
    cache: Cache,
    levels: HashMap<FileIdentity, Level>,
    current: Option<InProgress>,
    /// Number of the worker in office; 0: none was started.
    worker: u64,
    /// Whether a thread of that number runs.
    running: bool,
    stopping: bool,
}

/// What the worker, and those who wait for it, have in common.
#[derive(Debug, Default)]
pub struct Shared {
    state: Mutex<State>,
    work: Condvar,
    given_up: AtomicUsize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A known answer.
    pub fn cached(&self, key: &Key) -> Option<Arc<Template>> {
        self.lock().cache.get(key)
    }

    /// Queues jobs, as many as there is room for; gives back how many.
    pub fn push(self: &Arc<Self>, jobs: impl IntoIterator<Item = Job>) -> usize {
        let mut state = self.lock();
        let mut taken = 0;
        for job in jobs {
            if state.queue.len() >= QUEUE {
                break;
            }
            if job.reply.is_some() || state.cache.get(&job.key).is_none() {
                state.queue.push_back(job);
            }
            taken += 1;
        }
        drop(state);
        self.supervise(PATIENCE);
        self.work.notify_one();
        taken
    }

    /// Starts a worker if there is none, or if the one in office has been
    /// busy with one address for longer than `patience`.
    pub fn supervise(self: &Arc<Self>, patience: Duration) {
        let mut state = self.lock();
        let stuck = state.running
            && state.current.as_ref().is_some_and(|current| current.since.elapsed() > patience);
        if stuck {
            let Some(InProgress { job, .. }) = state.current.take() else { return };
            demote(&mut state, &job, "it takes too long");
            state.queue.push_front(job);
            state.running = false;
            self.given_up.fetch_add(1, Ordering::Relaxed);
        }
        let enough = self.given_up.load(Ordering::Relaxed) >= GIVEN_UP;
        if state.running || state.stopping || enough {
            return;
        }
        state.worker += 1;
        let number = state.worker;
        let shared = self.clone();
        let started = thread::Builder::new()
            .name(THREAD_NAME.to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || run(&shared, number));
        match started {
            Ok(_) => state.running = true,
            Err(error) => tracing::warn!(%error, "no thread for symbols; frames stay unnamed"),
        }
    }

    /// Ends the worker when it has finished with its address.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.stopping = true;
        state.queue.clear();
        self.work.notify_all();
    }

    /// What may be read of a file.
    #[cfg(test)]
    pub fn level(&self, key: &FileIdentity) -> Level {
        self.lock().levels.get(key).copied().unwrap_or_default()
    }
}

fn demote(state: &mut State, job: &Job, reason: &str) {
    let (Some(key), CodeAddress::File { object, .. }) = (job.key.object(), &job.address) else {
        return;
    };
    if state.levels.len() >= LEVELS {
        state.levels.clear();
    }
    let level = state.levels.entry(key).or_default();
    *level = level.lower();
    tracing::warn!(
        path = %crate::terminal::safe(&object.path().to_string_lossy()),
        reads = ?level,
        "symbols of this file: {reason}"
    );
}

/// Takes the next job; `None` if this worker is not in office any more.
fn next(shared: &Shared, number: u64) -> Option<(CodeAddress, Key, Level)> {
    let mut state = shared.lock();
    loop {
        if state.worker != number || !state.running || state.stopping {
            return None;
        }
        while let Some(job) = state.queue.pop_front() {
            if let Some(known) = state.cache.get(&job.key) {
                answer(&job, &known);
                continue;
            }
            let level = job.key.object().and_then(|key| state.levels.get(&key).copied());
            let taken = (job.address.clone(), job.key, level.unwrap_or_default());
            state.current = Some(InProgress { since: Instant::now(), job });
            return Some(taken);
        }
        state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
}

fn answer(job: &Job, template: &Arc<Template>) {
    if let Some(reply) = &job.reply {
        // Whoever asked may have stopped waiting.
        let _ = reply.send((job.key, template.clone()));
    }
}

/// Takes the result of a worker in; whether it is still in office.
fn finish(shared: &Shared, number: u64, result: thread::Result<Template>) -> bool {
    let mut state = shared.lock();
    if state.worker != number || !state.running {
        return false;
    }
    let Some(InProgress { job, .. }) = state.current.take() else { return true };
    match result {
        Ok(template) => {
            let template = Arc::new(template);
            answer(&job, &template);
            state.cache.insert(job.key, template);
        }
        Err(_) => {
            let level = job.key.object().map(|key| state.levels.get(&key).copied());
            demote(&mut state, &job, "its reader panicked");
            match level {
                // Again, at a lower level.
                Some(level) if level != Some(Level::Nothing) => state.queue.push_front(job),
                _ => answer(&job, &Arc::default()),
            }
        }
    }
    true
}

fn run(shared: &Shared, number: u64) {
    silence_panics();
    let mut names = Names::new();
    while let Some((address, key, level)) = next(shared, number) {
        debug_assert_eq!(Key::of(&address), Some(key));
        let result = panic::catch_unwind(AssertUnwindSafe(|| {
            #[cfg(test)]
            test_hook::call(&address, level);
            names.find(&address, level)
        }));
        if result.is_err() {
            // Whatever state it is in, nobody looks at it again.
            let broken = std::mem::replace(&mut names, Names::new());
            let _ = panic::catch_unwind(AssertUnwindSafe(move || drop(broken)));
        }
        if !finish(shared, number, result) {
            // Given up meanwhile; whoever took over is at work already.
            shared.given_up.fetch_sub(1, Ordering::Relaxed);
            return;
        }
    }
}

/// Keeps what a panic says about a file off the terminal: it is logged, safely.
fn silence_panics() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |information| {
            if thread::current().name() == Some(THREAD_NAME) {
                let message = information.to_string();
                let message = crate::terminal::safe_within(&message, 300);
                tracing::warn!(%message, "a reader of symbols panicked");
            } else {
                previous(information);
            }
        }));
    });
}

/// Lets a test stand in for a file that makes its reader slow or panic: no
/// such file is known, or blazesym would have been told.
#[cfg(test)]
pub mod test_hook {
    use super::*;

    type Hook = Box<dyn Fn(&CodeAddress, Level) + Send + Sync>;
    static HOOK: Mutex<Option<Arc<Hook>>> = Mutex::new(None);

    pub fn set(hook: Option<Hook>) {
        *HOOK.lock().unwrap() = hook.map(Arc::new);
    }

    pub fn call(address: &CodeAddress, level: Level) {
        let hook = HOOK.lock().unwrap().clone();
        if let Some(hook) = hook {
            hook(address, level);
        }
    }
}
