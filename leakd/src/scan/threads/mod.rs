//! What the threads of a process hold in registers, and where their stacks end.
//!
//! A pointer may be nowhere else. As a rule nobody is stopped for it:
//!
//! - Of a thread that sleeps or waits, the kernel has the registers from when it
//!   entered it. A BPF iterator reads them ([`crate::bpf::iterator`]);
//!   /proc/PID/task/TID/syscall tells that the thread is still at that place.
//! - A thread that runs is sampled by a timer ([`running`]) in its own time.
//! - Where the kernel has no such iterators (before 6.1), and where a pass is to be
//!   exact, threads are stopped by ptrace(2) ([`stop`]).
//!
//! ptrace(2) comes last because a stop can be noticed: epoll_wait(2) and some other
//! calls then fail with EINTR (signal(7)).

pub mod running;
pub mod stop;

use std::collections::{HashMap, HashSet};
use std::io;

use leakd_common::thread::{INSTRUCTION_WORD, REGISTER_WORDS, STACK_WORD};

use crate::bpf::iterator::TaskIterator;
use running::Running;

/// Threads that are sampled by timers at once: each takes a descriptor and a
/// buffer.
const MOST_TIMERS: usize = 128;

/// What was read of the threads.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// The words of all registers.
    pub words: Vec<u64>,
    /// Stack pointers, as far as they are known.
    pub stack_pointers: Vec<u64>,
}

/// The threads of a process, to be sampled again and again.
#[derive(Debug)]
pub struct Threads<'a> {
    pid: u32,
    iterator: Option<&'a TaskIterator>,
    timers: HashMap<u32, Running>,
    /// Threads whose registers were never seen.
    unread: HashSet<u32>,
    stopped: bool,
}

impl<'a> Threads<'a> {
    /// Of this process; without an iterator threads will be stopped.
    pub fn new(pid: u32, iterator: Option<&'a TaskIterator>) -> Self {
        Self { pid, iterator, timers: HashMap::new(), unread: HashSet::new(), stopped: false }
    }

    /// Threads whose registers could not be seen.
    pub fn unread(&self) -> usize {
        self.unread.len()
    }

    /// Whether threads were stopped, each for a moment.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Whether no thread runs, or is about to.
    pub fn all_sleep(&self) -> io::Result<bool> {
        let sleeps = |id: &u32| !matches!(place(self.pid, *id), Place::Running);
        Ok(ids(self.pid)?.iter().all(sleeps))
    }

    /// Takes one sample of each thread.
    ///
    /// # Errors
    /// If the process is gone, or what is needed is refused.
    pub fn sample(&mut self) -> io::Result<Sample> {
        let mut sample = Sample::default();
        let recorded = match self.iterator.map(|iterator| iterator.run(self.pid)) {
            Some(Ok(bytes)) => records(&bytes),
            Some(Err(error)) if error.raw_os_error() == Some(libc::ESRCH) => return Err(error),
            // Before 6.1 it is EINVAL: not again.
            Some(Err(_)) | None => {
                self.iterator = None;
                return self.stop_each(sample);
            }
        };
        // Those of threads that run are old, and do no harm.
        sample.words.extend(recorded.iter().flatten());
        let places: HashSet<(u64, u64)> =
            recorded.iter().map(|words| (words[STACK_WORD], words[INSTRUCTION_WORD])).collect();
        let ids = ids(self.pid)?;
        self.timers.retain(|id, _| ids.contains(id));
        for id in &ids {
            match place(self.pid, *id) {
                Place::At(pointer, instruction) if places.contains(&(pointer, instruction)) => {
                    sample.stack_pointers.push(pointer);
                    self.unread.remove(id);
                }
                Place::Gone => {}
                _ => self.time(*id, &mut sample),
            }
        }
        for timer in self.timers.values_mut() {
            timer.drain(&mut sample);
        }
        Ok(sample)
    }

    /// Has a thread that runs sampled by a timer; if that cannot be had, by a stop.
    fn time(&mut self, id: u32, sample: &mut Sample) {
        if self.timers.contains_key(&id) {
            return;
        }
        if self.timers.len() < MOST_TIMERS
            && let Ok(timer) = Running::start(id)
        {
            self.timers.insert(id, timer);
            self.unread.remove(&id);
            return;
        }
        match stop::read_one_apart(id) {
            Ok(Some(thread)) => {
                self.stopped = true;
                self.unread.remove(&id);
                sample.stack_pointers.push(thread.stack_pointer);
                sample.words.extend(thread.words);
            }
            Ok(None) => {} // It has ended.
            Err(_) => {
                self.unread.insert(id);
            }
        }
    }

    fn stop_each(&mut self, mut sample: Sample) -> io::Result<Sample> {
        self.stopped = true;
        for id in ids(self.pid)? {
            match stop::read_one_apart(id) {
                Ok(Some(thread)) => {
                    self.unread.remove(&id);
                    sample.stack_pointers.push(thread.stack_pointer);
                    sample.words.extend(thread.words);
                }
                Ok(None) => {}
                Err(error @ stop::StopError::Traced(_)) => return Err(io::Error::other(error)),
                Err(_) => {
                    self.unread.insert(id);
                }
            }
        }
        Ok(sample)
    }
}

/// The threads of a process.
fn ids(pid: u32) -> io::Result<Vec<u32>> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task"))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// The registers that an iterator wrote, thread by thread.
fn records(bytes: &[u8]) -> Vec<[u64; REGISTER_WORDS]> {
    bytes
        .chunks_exact(REGISTER_WORDS * 8)
        .map(|record| {
            let mut words = [0; REGISTER_WORDS];
            for (word, bytes) in words.iter_mut().zip(record.chunks_exact(8)) {
                *word = u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
            }
            words
        })
        .collect()
}

/// Where a thread is.
enum Place {
    /// Blocked: stack pointer and instruction.
    At(u64, u64),
    /// Running, or to run at once.
    Running,
    /// It has ended.
    Gone,
}

fn place(pid: u32, id: u32) -> Place {
    let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/task/{id}/syscall")) else {
        return match std::fs::exists(format!("/proc/{pid}/task/{id}")) {
            Ok(true) => Place::Running,
            _ => Place::Gone,
        };
    };
    let mut last = text
        .split_ascii_whitespace()
        .rev()
        .map(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok());
    match (last.next().flatten(), last.next().flatten()) {
        (Some(instruction), Some(pointer)) => Place::At(pointer, instruction),
        _ => Place::Running,
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};
    use std::time::Duration;

    use super::*;

    fn shell(script: &str) -> Child {
        Command::new("sh").args(["-c", script]).spawn().expect("a shell")
    }

    /// Check that where there is no iterator, registers of a process that sleeps and
    /// of one that runs are read by stops, again and again, and that both run on.
    #[test]
    fn without_an_iterator() {
        let mut child = shell("while :; do :; done");
        let clock =
            || nix::time::clock_getcpuclockid(nix::unistd::Pid::from_raw(child.id() as i32));
        let mut threads = Threads::new(child.id(), None);
        for _ in 0..20 {
            let sample = threads.sample().expect("it can be stopped");
            assert_eq!(sample.stack_pointers.len(), 1);
            assert!(sample.words.len() > 100, "vector registers, too");
        }
        assert!(threads.stopped() && threads.unread() == 0);
        assert!(!threads.all_sleep().unwrap());
        let time = || Duration::from(nix::time::clock_gettime(clock().unwrap()).unwrap());
        let before = time();
        while time() < before + Duration::from_millis(20) {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(Threads::new(child.id(), None).sample().is_err());

        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let mut threads = Threads::new(child.id(), None);
        // In clock_nanosleep(2), and not on its way there.
        let call = format!("/proc/{}/syscall", child.id());
        while !std::fs::read_to_string(&call).unwrap().starts_with("230 ") {
            std::thread::yield_now();
        }
        let sample = threads.sample().unwrap();
        let Place::At(pointer, _) = place(child.id(), child.id()) else { panic!("it sleeps") };
        assert_eq!(sample.stack_pointers, [pointer]);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
