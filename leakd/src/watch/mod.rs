//! Every process of the machine, by /proc, at next to no cost.
//!
//! | file | concern |
//! |---|---|
//! | [`read`] | what is read of one process, and how |
//! | [`cgroup`] | control group, systemd unit, container |
//! | [`history`] | a bounded memory of a series |
//! | [`growth`] | noise from trend |
//! | [`limit`] | what control groups leave a process |
//! | [`kernel`] | the kernel's own memory: totals and slab caches |
//!
//! A process is told by its pid and its start time. `/proc/PID/status` stays
//! open between two looks: a read of it fails once the process is gone, even
//! if its pid has been given out again.

pub mod cgroup;
pub mod growth;
pub mod history;
pub mod kernel;
pub mod limit;
pub mod read;

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use growth::{Judge, Judgement};
use history::History;
use kernel::KernelWatch;
use read::{Detail, Figures, Identity, Reader, StatusFile};

/// Looks after which name, program and control group are read again, and pids
/// of kernel threads are looked at again.
const REVIEW: u64 = 12;

/// A process that is watched.
#[derive(Debug)]
pub struct Watched {
    /// Who it is.
    pub identity: Arc<Identity>,
    /// What was read last.
    pub figures: Figures,
    /// What is read of suspects only.
    pub detail: Option<Detail>,
    /// Its memory over time: anonymous with swap, in bytes.
    pub history: History,
    /// What its memory does.
    pub judgement: Judgement,
    status: Option<StatusFile>,
    seen: u64,
}

impl Watched {
    /// Anonymous memory, resident or in swap, in bytes: what the process took.
    pub fn bytes(&self) -> u64 {
        self.figures.anonymous_bytes.saturating_add(self.figures.swap_bytes)
    }
}

/// What a look at all processes came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Its number, from 1.
    pub number: u64,
    /// Processes.
    pub processes: usize,
    /// Those that there was no room for.
    pub left_out: u64,
    /// CPU time that it took.
    pub cpu: Duration,
}

/// All processes.
#[derive(Debug)]
pub struct Watch {
    processes: HashMap<u32, Watched>,
    /// Pids of kernel threads, which have no memory of their own.
    kernel_threads: HashSet<u32>,
    reader: Reader,
    judge: Judge,
    most: usize,
    began: Instant,
    passes: u64,
    detailed: HashSet<u32>,
    last: Pass,
    /// Status files that may be kept open.
    descriptors: usize,
    kernel: KernelWatch,
}

impl Watch {
    /// `most` processes are watched; `descriptors` of their files are kept
    /// open.
    pub fn new(judge: Judge, most: usize, descriptors: usize) -> Self {
        Self {
            processes: HashMap::new(),
            kernel_threads: HashSet::new(),
            reader: Reader::default(),
            judge,
            most,
            began: Instant::now(),
            passes: 0,
            detailed: HashSet::new(),
            last: Pass::default(),
            descriptors,
            kernel: KernelWatch::new(judge.least_slope),
        }
    }

    /// Other settings, from the next look on.
    pub fn configure(&mut self, judge: Judge, most: usize) {
        self.judge = judge;
        self.most = most;
        self.kernel.configure(judge.least_slope);
    }

    /// The processes.
    pub fn processes(&self) -> impl Iterator<Item = &Watched> {
        self.processes.values()
    }

    /// One process.
    pub fn process(&self, pid: u32) -> Option<&Watched> {
        self.processes.get(&pid)
    }

    /// The kernel's own memory.
    pub fn kernel(&self) -> &KernelWatch {
        &self.kernel
    }

    /// The last look.
    pub fn last(&self) -> Pass {
        self.last
    }

    /// Seconds on the clock of the histories.
    pub fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Processes of which more is to be read, which costs more.
    pub fn detail(&mut self, pids: HashSet<u32>) {
        self.detailed = pids;
    }

    /// Looks at all processes, and at the kernel.
    ///
    /// # Errors
    /// If /proc cannot be listed. What vanishes between two reads has ended.
    pub fn look(&mut self) -> io::Result<Pass> {
        let began = thread_time();
        self.kernel.look(self.now());
        let of_kernel = thread_time().saturating_sub(began);
        self.look_when(self.now(), read::since_boot())?;
        self.last.cpu += of_kernel;
        Ok(self.last)
    }

    /// Looks at the processes; `now` in seconds on the clock of the histories, `boot` since
    /// the machine's start.
    fn look_when(&mut self, now: f64, boot: Duration) -> io::Result<Pass> {
        let began = thread_time();
        self.passes += 1;
        let review = self.passes.is_multiple_of(REVIEW);
        if review {
            self.kernel_threads.clear();
        }
        let mut left_out = 0;
        for pid in read::pids()? {
            if self.kernel_threads.contains(&pid) {
                continue;
            }
            // Spread, so that no look is dearer than the others.
            let reviewed = (self.passes + u64::from(pid)).is_multiple_of(REVIEW);
            self.look_at(pid, now, boot, reviewed, &mut left_out);
        }
        let passes = self.passes;
        self.processes.retain(|_, process| process.seen == passes);
        let cpu = thread_time().saturating_sub(began);
        let processes = self.processes.len();
        self.last = Pass { number: self.passes, processes, left_out, cpu };
        Ok(self.last)
    }

    fn look_at(&mut self, pid: u32, now: f64, boot: Duration, review: bool, left_out: &mut u64) {
        if let Some(process) = self.processes.get_mut(&pid) {
            let read = match &process.status {
                Some(file) => self.reader.read(file),
                None => self.reader.read_again(&process.identity),
            };
            if let Ok(figures) = read {
                process.seen = self.passes;
                let renamed = !self.reader.is_named(&process.identity);
                if review || renamed {
                    refresh(process);
                }
                if review && self.detailed.contains(&pid) {
                    process.detail = read::detail(pid);
                }
                process.record(figures, now, boot, &self.judge);
                return;
            }
            // Gone; another may have its pid already.
            self.processes.remove(&pid);
        }
        if self.processes.len() >= self.most {
            *left_out += 1;
            return;
        }
        let Ok(status) = StatusFile::open(pid) else { return };
        let figures = match self.reader.read(&status) {
            Ok(figures) => figures,
            Err(read::Unreadable::KernelThread) => {
                self.kernel_threads.insert(pid);
                return;
            }
            Err(_) => return,
        };
        // Read after the status file was opened; that it still can be read
        // proves that both are of the same process.
        let Some(identity) = read::identify(pid, self.reader.name(), self.reader.uid()) else {
            return;
        };
        if self.reader.read(&status).is_err() {
            return;
        }
        let keep = self.processes.len() < self.descriptors;
        let mut process = Watched {
            identity: Arc::new(identity),
            figures,
            detail: None,
            history: History::default(),
            judgement: Judgement::default(),
            status: keep.then_some(status),
            seen: self.passes,
        };
        process.record(figures, now, boot, &self.judge);
        self.processes.insert(pid, process);
    }
}

impl Watched {
    fn record(&mut self, figures: Figures, now: f64, boot: Duration, judge: &Judge) {
        self.figures = figures;
        let age = self.identity.age(boot);
        // What it takes to start says nothing of what it does later.
        if age >= judge.startup {
            self.history.push(now, self.bytes());
            self.judgement = judge.judge(&self.history);
        }
    }
}

/// Reads again who a process is; another program begins anew.
fn refresh(process: &mut Watched) {
    let old = &process.identity;
    let Some(fresh) = read::identify(old.pid, "", 0) else { return };
    if fresh.start_time != old.start_time {
        return; // The next read will find it gone.
    }
    if fresh.exe != old.exe {
        process.history = History::default();
        process.judgement = Judgement::default();
        process.detail = None;
    }
    if *old.as_ref() != fresh {
        process.identity = Arc::new(fresh);
    }
}

fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

#[cfg(test)]
mod tests;
