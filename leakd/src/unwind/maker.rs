//! Threads that make tables, so that nobody else waits for a file: from the
//! cache on disk if that has them, else from the files.
//!
//! Orders come by process. Whose took least time so far is next, so that one
//! process with many large files does not hold the others up; one that has used
//! up its time goes without for a while.

use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::elf::FileIdentity;
use crate::thread_time::thread_time;
use crate::unwind::cache::DiskCache;
use crate::unwind::source::{NoTable, TableKey, TableSource};
use crate::unwind::store::StoreLimits;
use crate::unwind::{ConvertError, Limits, Table, convert, vdso};

/// A file that somebody touched while it was read is read this often.
const ATTEMPTS: u32 = 2;

/// What became of an order.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) key: TableKey,
    pub(crate) table: Result<Arc<Table>, NoTable>,
    /// It was in the cache on disk.
    pub(crate) from_cache: bool,
}

/// The threads and what they have to do. They end when there is nothing left.
#[derive(Debug)]
pub(crate) struct Maker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limits: StoreLimits,
    cache: Option<DiskCache>,
    state: Mutex<State>,
    /// Something was made or taken, or a thread has ended.
    progress: Condvar,
    /// The same for tasks: something was made.
    made: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    queues: HashMap<u32, Queue>,
    /// Ordered, and not made yet.
    ordered: HashSet<TableKey>,
    made: Vec<Made>,
    /// Of the cells of what is in `made`.
    made_bytes: u64,
    /// For the cache on disk, when nothing else is to be done.
    unsaved: VecDeque<(FileIdentity, Arc<Table>)>,
    unsaved_bytes: u64,
    threads: usize,
    stopping: bool,
}

/// The orders of one process.
#[derive(Debug)]
struct Queue {
    orders: BinaryHeap<Order>,
    /// Processor time that its files took since `since`.
    spent: Duration,
    since: Instant,
}

/// Large files first: they would hold up the end.
#[derive(Debug)]
struct Order(TableSource);

impl PartialEq for Order {
    fn eq(&self, other: &Self) -> bool {
        self.0.size() == other.0.size()
    }
}

impl Eq for Order {}

impl PartialOrd for Order {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Order {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.size().cmp(&other.0.size())
    }
}

/// What a thread does next.
enum Task {
    Make(u32, TableSource),
    Save(FileIdentity, Arc<Table>),
}

impl Maker {
    pub(crate) fn new(limits: StoreLimits, cache: Option<DiskCache>) -> Self {
        let state = Mutex::new(State::default());
        let (progress, made) = (Condvar::new(), Arc::default());
        Self { shared: Arc::new(Shared { limits, cache, state, progress, made }) }
    }

    /// Told when something was made.
    pub(crate) fn notify(&self) -> Arc<Notify> {
        Arc::clone(&self.shared.made)
    }

    /// Orders the table of a file of a process; one that is ordered already
    /// comes once.
    pub(crate) fn order(&self, pid: u32, source: &TableSource) {
        let mut state = self.shared.lock();
        if !state.ordered.insert(source.key()) {
            return;
        }
        let new =
            || Queue { orders: BinaryHeap::new(), spent: Duration::ZERO, since: Instant::now() };
        state.queues.entry(pid).or_insert_with(new).orders.push(Order(source.clone()));
        if state.threads >= self.shared.limits.threads.max(1) {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let spawned =
            thread::Builder::new().name("unwind-tables".to_owned()).spawn(move || work(&shared));
        match spawned {
            Ok(_) => state.threads += 1,
            // Those that run will come to it.
            Err(_) if state.threads > 0 => {}
            Err(error) => {
                tracing::warn!(%error, "no thread for unwind tables");
                state.refuse(pid, &NoTable::Internal);
                self.shared.tell();
            }
        }
    }

    /// Drops a process's orders that are not under way; gives what will not be
    /// made.
    pub(crate) fn forget(&self, pid: u32) -> Vec<TableKey> {
        let mut state = self.shared.lock();
        let Some(queue) = state.queues.remove(&pid) else { return Vec::new() };
        let keys: Vec<TableKey> = queue.orders.iter().map(|order| order.0.key()).collect();
        for key in &keys {
            state.ordered.remove(key);
        }
        keys
    }

    /// What was made since the last time.
    pub(crate) fn take(&self) -> Vec<Made> {
        let mut state = self.shared.lock();
        let made = std::mem::take(&mut state.made);
        if !made.is_empty() {
            state.made_bytes = 0;
            self.shared.progress.notify_all();
        }
        made
    }

    /// Waits until all of these are made, so many that they have to be taken
    /// first, or it is too late.
    pub(crate) fn wait(&self, keys: &[TableKey], until: Instant) {
        let limit = self.shared.limits.bytes;
        let mut state = self.shared.lock();
        while state.made_bytes <= limit && keys.iter().any(|key| state.ordered.contains(key)) {
            let Some(left) = until.checked_duration_since(Instant::now()) else { return };
            let waited = self.shared.progress.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until all is made that was ordered, and kept on disk. What was made
    /// must have been taken.
    pub(crate) fn wait_until_idle(&self) {
        let mut state = self.shared.lock();
        while state.threads > 0 {
            state = self.shared.progress.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        // Not joined: each ends with what it has in hand.
        self.shared.lock().stopping = true;
        self.shared.progress.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.progress.notify_all();
        self.made.notify_one();
    }

    /// What to do next; `None`: the thread ends.
    fn next(&self) -> Option<Task> {
        let mut state = self.lock();
        loop {
            if state.stopping {
                break;
            }
            let has_room = state.made_bytes <= self.limits.bytes;
            if has_room {
                let refused = state.made.len();
                let order = state.next_order(&self.limits);
                if state.made.len() > refused {
                    self.tell();
                }
                if let Some((pid, source)) = order {
                    return Some(Task::Make(pid, source));
                }
            }
            if let Some((identity, table)) = state.unsaved.pop_front() {
                state.unsaved_bytes -= table.cell_bytes();
                return Some(Task::Save(identity, table));
            }
            if has_room {
                break;
            }
            state = self.progress.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.threads -= 1;
        self.progress.notify_all();
        None
    }

    /// Hands a table over.
    fn finish(&self, pid: u32, made: Made, save_as: Option<FileIdentity>, took: Duration) {
        let mut state = self.lock();
        if let Some(queue) = state.queues.get_mut(&pid) {
            queue.spent += took;
        }
        if let Ok(table) = &made.table {
            let bytes = table.cell_bytes();
            state.made_bytes += bytes;
            if let Some(identity) = save_as
                && self.cache.is_some()
                && state.unsaved_bytes + bytes <= self.limits.bytes
            {
                state.unsaved_bytes += bytes;
                state.unsaved.push_back((identity, Arc::clone(table)));
            }
        }
        state.ordered.remove(&made.key);
        state.made.push(made);
        self.progress.notify_all();
        // Each time costs the collector a system call or two: not for each of
        // many. It looks now and then by itself, too.
        if state.ordered.is_empty() {
            self.made.notify_one();
        }
    }
}

impl State {
    /// The next order of the process whose orders took least time.
    fn next_order(&mut self, limits: &StoreLimits) -> Option<(u32, TableSource)> {
        loop {
            let queues = self.queues.iter_mut().filter(|(_, queue)| !queue.orders.is_empty());
            let (&pid, queue) = queues.min_by_key(|(_, queue)| queue.spent)?;
            if queue.since.elapsed() >= limits.retry_after {
                (queue.spent, queue.since) = (Duration::ZERO, Instant::now());
            }
            if queue.spent < limits.process_time {
                return Some((pid, queue.orders.pop()?.0));
            }
            self.refuse(pid, &NoTable::NoTime);
        }
    }

    /// None of a process's orders will be made.
    fn refuse(&mut self, pid: u32, why: &NoTable) {
        let orders = self.queues.get_mut(&pid).map(|queue| std::mem::take(&mut queue.orders));
        for Order(source) in orders.into_iter().flatten() {
            let key = source.key();
            self.ordered.remove(&key);
            self.made.push(Made { key, table: Err(why.clone()), from_cache: false });
        }
    }
}

/// What each thread does.
fn work(shared: &Shared) {
    while let Some(task) = shared.next() {
        match task {
            Task::Make(pid, source) => {
                let begun = thread_time();
                let key = source.key();
                // Whoever waits for it must hear of it, whatever happens.
                let result = catch_unwind(AssertUnwindSafe(|| shared.make(&source)));
                let (table, save_as, from_cache) =
                    result.unwrap_or((Err(NoTable::Internal), None, false));
                let made = Made { key, table: table.map(Arc::new), from_cache };
                shared.finish(pid, made, save_as, thread_time().saturating_sub(begun));
            }
            Task::Save(identity, table) => {
                if let Some(cache) = &shared.cache {
                    cache.store(&identity, &table);
                }
            }
        }
    }
}

impl Shared {
    /// Makes a table; gives what to keep it on disk under, and whether it comes
    /// from there.
    fn make(&self, source: &TableSource) -> (Result<Table, NoTable>, Option<FileIdentity>, bool) {
        let (table, save_as) = match source {
            TableSource::Vdso => (vdso::table(), None),
            TableSource::File(identity, file) => {
                if let Some(table) = self.cache.as_ref().and_then(|cache| cache.load(identity)) {
                    return (self.fitting(Ok(table)), None, true);
                }
                match convert_identified(identity, file, self.limits.file) {
                    Ok((table, identity)) => (Ok(table), Some(identity)),
                    Err(error) => (Err(error), None),
                }
            }
        };
        (self.fitting(table), save_as, false)
    }

    /// What could never be loaded need not be kept until then.
    fn fitting(&self, table: Result<Table, ConvertError>) -> Result<Table, NoTable> {
        let (table, limit) = (table?, self.limits.bytes);
        if table.cell_bytes() <= limit {
            return Ok(table);
        }
        Err(ConvertError::TooLarge { what: "the table", limit }.into())
    }
}

/// Makes the table of a file that was looked at some time ago; gives what it is
/// known as now.
///
/// A file that was replaced on disk, as a package manager does it, has another
/// ctime, for it lost its name; but it is as it was, and mapped. One that
/// somebody wrote to is refused.
fn convert_identified(
    identity: &FileIdentity,
    file: &std::fs::File,
    limits: Limits,
) -> Result<(Table, FileIdentity), ConvertError> {
    let begun = Instant::now();
    let mut left = limits;
    for _ in 0..ATTEMPTS {
        let now = FileIdentity::of(file)?;
        if !now.has_content_of(identity) {
            break;
        }
        match convert(file, left) {
            Err(ConvertError::Changed) => {}
            result => return Ok((result?, now)),
        }
        left.time = limits.time.saturating_sub(begun.elapsed());
    }
    Err(ConvertError::Changed)
}
