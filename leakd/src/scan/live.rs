//! Many looks at a process that runs on.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::{Duration, Instant};

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use super::allocator::Allocator;
use super::graph::{Pointers, Reach};
use super::index::BlockIndex;
use super::memory::Memory;
use super::round::{Found, Hot, Round};
use super::threads::{Sample, Threads};
use super::{How, Ledger, Outcome, ScanError, settle};
use crate::bpf::iterator::TaskIterator;
use crate::engine::snapshot::now_ns;

/// Looks, at most.
pub const ROUNDS: u32 = 32;
/// Of these, at least so many at all of the memory.
pub const WHOLE_ROUNDS: u32 = 4;
/// All of them, as long as they take no longer than this.
const WHOLE_FOR: Duration = Duration::from_millis(1500);
/// The longest pause between two looks: so that they keep no step with anything.
const PAUSE: Duration = Duration::from_millis(4);
/// Bytes whose sums are compared, up to ...
const GRAIN: u64 = 4 << 10;
/// ... so many bytes of memory; ...
const FINE: u64 = 4 << 30;
/// ... and beyond.
const COARSE_GRAIN: u64 = 64 << 10;

/// What a scan is of.
#[derive(Debug)]
pub struct Subject<'a> {
    /// The process.
    pub pid: u32,
    /// Reads registers of threads that do not run; `None`: they will be stopped.
    pub iterator: Option<&'a TaskIterator>,
    /// Threads to look with.
    pub threads: usize,
}

/// The bookkeeping of a scan.
struct Scan<'a> {
    subject: &'a Subject<'a>,
    memory: Memory,
    threads: Threads<'a>,
    /// How long the last look took.
    last: Duration,
    how: How,
    grain: u64,
    sums: HashMap<u64, u64>,
    hot: HashSet<u64>,
}

/// Scans a process while it runs. `progress` is told after each look: how many
/// there were, and how many blocks seem to be lost.
///
/// # Errors
/// See [`ScanError`].
pub fn scan(
    subject: &Subject<'_>,
    ledger: &Ledger<'_>,
    progress: &mut dyn FnMut(u32, u64),
) -> Result<Outcome, ScanError> {
    let begin = Instant::now();
    let memory = Memory::open(subject.pid)?;
    let newest = now_ns()?;
    let mut blocks = ledger()?;
    blocks.retain(|block| block.birth_ns <= newest);
    let index = BlockIndex::new(blocks);
    let allocator = Allocator::new(&memory.mappings()?, &index);
    let mut scan = Scan {
        subject,
        memory,
        threads: Threads::new(subject.pid, subject.iterator),
        last: Duration::ZERO,
        how: How::default(),
        grain: GRAIN,
        sums: HashMap::new(),
        hot: HashSet::new(),
    };
    let first = scan.round(&index, None, &allocator)?;
    let mut classes = first.classify(index.blocks().len());
    scan.how.overflowed = first.overflowed();
    let lost = |class: &Reach| *class < Reach::Possibly;
    let candidates: Vec<u32> =
        (0u32..).zip(&classes).filter(|(_, class)| lost(class)).map(|(number, _)| number).collect();
    progress(1, candidates.len() as u64);
    if !candidates.is_empty() && !scan.how.exact {
        let mut numbers = vec![u32::MAX; index.blocks().len()];
        for (new, old) in (0u32..).zip(&candidates) {
            numbers[*old as usize] = new;
        }
        let number = |old: u32| Some(numbers[old as usize]).filter(|new| *new != u32::MAX);
        let mut union = first.among(number);
        drop(first);
        let part = candidates.iter().map(|old| index.blocks()[*old as usize]).collect();
        let part = BlockIndex::new(part);
        let known = (&index, classes.as_slice());
        let found = scan.others(&part, &mut union, known, &allocator, progress)?;
        for (old, class) in candidates.iter().zip(found) {
            classes[*old as usize] = class;
        }
    }
    let Scan { memory, threads, mut how, .. } = scan;
    how.unread_threads = threads.unread();
    how.threads_stopped = threads.stopped();
    let blocks = index.blocks().iter().copied().zip(classes).collect();
    let blocks = settle(blocks, &ledger()?, &mut how);
    if !memory.is_same() {
        return Err(ScanError::Gone);
    }
    how.took = begin.elapsed();
    Ok(Outcome { blocks, how })
}

impl Scan<'_> {
    /// All looks after the first, for blocks that it did not reach.
    fn others(
        &mut self,
        index: &BlockIndex,
        union: &mut Pointers,
        known: (&BlockIndex, &[Reach]),
        allocator: &Allocator,
        progress: &mut dyn FnMut(u32, u64),
    ) -> Result<Vec<Reach>, ScanError> {
        let mut compact = union.len();
        loop {
            union.append(self.round(index, Some(known), allocator)?);
            if union.len() > 2 * compact + 1024 {
                union.deduplicate();
                compact = union.len();
            }
            let classes = union.classify(index.blocks().len());
            let lost = classes.iter().filter(|class| **class < Reach::Possibly).count();
            progress(self.how.rounds, lost as u64);
            if lost == 0 || self.how.exact || self.how.rounds >= ROUNDS {
                self.how.overflowed += union.overflowed();
                return Ok(classes);
            }
            std::thread::sleep(PAUSE.mul_f64(fastrand::f64()));
        }
    }

    /// One look: the pointers that it found.
    fn round(
        &mut self,
        index: &BlockIndex,
        known: Option<(&BlockIndex, &[Reach])>,
        allocator: &Allocator,
    ) -> Result<Pointers, ScanError> {
        let whole = self.how.rounds < WHOLE_ROUNDS || self.how.reading < WHOLE_FOR;
        let hot = Hot { grains: &self.hot, known: &self.sums, grain: self.grain };
        let round = Round {
            memory: &self.memory,
            index,
            known,
            allocator,
            only: (!whole).then_some(hot),
            grain: if whole { self.grain } else { 0 },
            threads: self.subject.threads,
            deadline: None,
        };
        let ran = processor_time(self.subject.pid)?;
        let slept = self.threads.all_sleep()?;
        let sample = self.threads.sample()?;
        // Registers once more, at some moment of the look.
        let delay = self.last.mul_f64(fastrand::f64());
        let threads = &mut self.threads;
        let (found, again) = std::thread::scope(|scope| {
            let sampler = scope.spawn(move || -> io::Result<Sample> {
                std::thread::sleep(delay);
                threads.sample()
            });
            let found = round.look(&sample.stack_pointers);
            (found, sampler.join())
        });
        let again = again.map_err(|_| io::Error::other("a scanning thread died"))??;
        let Found { mut pass, unreadable, took, .. } = found?;
        let mut pointers = std::mem::take(&mut pass.pointers);
        round.add_registers(&sample.words, &mut pointers);
        round.add_registers(&again.words, &mut pointers);
        self.how.exact =
            slept && self.threads.all_sleep()? && processor_time(self.subject.pid)? == ran;
        self.last = took;
        self.how.rounds += 1;
        self.how.reading += took;
        self.how.bytes_read += pass.bytes;
        self.how.unreadable = self.how.unreadable.max(unreadable);
        if whole {
            self.how.whole_rounds += 1;
            self.how.bytes = pass.bytes;
            self.compare(pass.sums);
        }
        Ok(pointers)
    }

    /// Finds out what has changed since the last look at everything.
    fn compare(&mut self, sums: HashMap<u64, u64>) {
        if self.how.rounds == 1 && self.how.bytes > FINE {
            self.grain = COARSE_GRAIN;
            return;
        }
        if !self.sums.is_empty() {
            let changed = sums.iter().filter(|(grain, sum)| self.sums.get(grain) != Some(sum));
            self.hot.extend(changed.map(|(grain, _)| *grain));
        }
        self.sums = sums;
    }
}

/// Processor time that a process has had, without that of threads which have been
/// running since the last tick: the kernel counts it when they are switched away from.
/// So it tells of nothing that has moved only if all threads slept before and after.
fn processor_time(pid: u32) -> io::Result<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid.cast_signed()))?;
    Ok(clock_gettime(clock)?.into())
}
