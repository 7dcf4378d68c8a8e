//! Per-CPU ring buffers, each drained by a tokio task of its own.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aya::maps::{Map, MapData, RingBuf};
use leakd_common::event::{
    EventKind, INSTRUCTION_FRAME, MAX_FRAMES, ProcessRecord, StackEnd, StackRecord,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::plain::read;
use crate::bpf::object::BpfObject;
use crate::bpf::sys::{self, MapSpec, map_type};
use crate::symbol::Lookup;

/// Bytes of a ring, at least: 240 stacks of full depth. With no more, a compiler that
/// came to a thousand new call sites within milliseconds lost one in twenty of them.
const LEAST_RING_BYTES: u32 = 256 << 10;
/// Bytes of a ring, at most.
const MOST_RING_BYTES: u32 = 1 << 20;
/// Bytes of all rings together, where that leaves each the least.
const ALL_RINGS_BYTES: u32 = 16 << 20;
/// The probes wake nobody for a single record; this is how long one may wait.
const POLL: Duration = Duration::from_millis(20);
/// Records that may wait for their reader; when it is slow, the rings fill, and
/// the probes count what finds no room.
const QUEUE: usize = 1024;
/// Bytes in front of a stack record's frames.
const STACK_HEADER: usize = size_of::<StackRecord>() - 8 * MAX_FRAMES;

/// A call site's stack.
#[derive(Clone, Debug)]
pub struct Stack {
    /// The target's slot.
    pub slot: u16,
    /// The site's key.
    pub site: u64,
    /// The target's epoch.
    pub epoch: u32,
    /// Number of the `StackEnd`.
    pub end: u32,
    /// Frames found by the frame pointer.
    pub frame_pointer_steps: u32,
    /// CLOCK_MONOTONIC when it was walked, nanoseconds.
    pub time_ns: u64,
    /// Addresses, innermost first.
    pub frames: Box<[u64]>,
    /// Bit i: `frames[i]` is not a return address but that of an instruction
    /// that a signal interrupted or that faulted.
    pub instructions: u128,
}

impl Stack {
    /// The addresses, innermost first, and how each is to be looked up.
    pub fn addresses(&self) -> impl Iterator<Item = (u64, Lookup)> {
        // What stands in front of an interrupted instruction is the trampoline that
        // the handler returns to: its first instruction, which nothing called.
        let instructions = self.instructions | self.instructions >> 1;
        self.frames.iter().enumerate().map(move |(number, &address)| {
            let is_instruction = instructions >> number & 1 != 0;
            (address, if is_instruction { Lookup::Instruction } else { Lookup::Return })
        })
    }

    /// The addresses for which the walker may have had no table.
    pub fn without_table(&self) -> &[u64] {
        let ends = [StackEnd::NoMapping, StackEnd::NoTable].map(|end| end as u32);
        match &*self.frames {
            // It is not known which of them were left by the frame pointer.
            frames if self.frame_pointer_steps > 0 => frames,
            [.., last] if ends.contains(&self.end) => std::slice::from_ref(last),
            _ => &[],
        }
    }
}

/// One bit for each frame.
const _: () = assert!(MAX_FRAMES == u128::BITS as usize);

/// What the probes announced.
#[derive(Clone, Debug)]
pub enum Announcement {
    /// A new call site.
    Stack(Stack),
    /// A new call site of page faults.
    PageFaultStack(Stack),
    /// A target made a process or a thread: its id.
    Fork {
        /// The target's slot.
        slot: u16,
        /// The child.
        child: u32,
    },
    /// A target replaced its program image.
    Exec {
        /// The target's slot.
        slot: u16,
    },
}

/// The tasks that drain the rings; they end when this is dropped.
#[derive(Debug)]
pub struct Rings {
    tasks: JoinSet<()>,
    bytes: u64,
    /// Where the tasks say that they have passed on all that there was.
    flush: watch::Sender<Arc<AtomicUsize>>,
}

/// That all which was announced by some time is passed on.
#[derive(Debug)]
pub struct Flush {
    done: Arc<AtomicUsize>,
    rings: usize,
}

impl Flush {
    /// Whether it has been. What was passed on waits to be received, and where
    /// too much does, nothing more is passed on.
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire) >= self.rings
    }
}

impl Rings {
    /// Makes a ring for each CPU and starts draining them. Within a tokio
    /// runtime only.
    pub fn start(object: &BpfObject) -> io::Result<(Self, mpsc::Receiver<Announcement>)> {
        let outer = object.map("RINGS").map_err(io::Error::other)?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut tasks = JoinSet::new();
        let (flush, _) = watch::channel(Arc::default());
        let cpus = sys::possible_cpus()?;
        let bytes = ring_bytes(cpus);
        let mut rings = Vec::with_capacity(cpus);
        for _ in 0..cpus {
            rings.push(sys::map_create(&MapSpec {
                map_type: map_type::RING_BUFFER,
                key_size: 0,
                value_size: 0,
                max_entries: bytes,
                flags: 0,
                name: "leakd_ring",
            })?);
        }
        let keys: Vec<u8> = (0..cpus as u32).flat_map(u32::to_ne_bytes).collect();
        let values: Vec<u8> = rings.iter().flat_map(|fd| fd.as_raw_fd().to_ne_bytes()).collect();
        if sys::map_update_batch(outer.as_fd(), &keys, &values, cpus as u32, 0).is_err() {
            // No batches on this kernel.
            for (key, value) in keys.chunks(4).zip(values.chunks(4)) {
                sys::map_update(outer.as_fd(), key, value, 0)?;
            }
        }
        for ring in rings {
            let data = MapData::from_fd(ring).map_err(io::Error::other)?;
            let ring = RingBuf::try_from(Map::RingBuf(data)).map_err(io::Error::other)?;
            // SAFETY: the ring owns its descriptor and gives the same one for as
            // long as it lives; `AsyncFd` drops it after deregistering.
            let ring = unsafe { AsyncFd::register(ring) }?;
            tasks.spawn(drain(ring, sender.clone(), flush.subscribe()));
        }
        Ok((Self { tasks, bytes: u64::from(bytes) * cpus as u64, flush }, receiver))
    }

    /// Has all passed on that has been announced by now.
    pub fn flush(&self) -> Flush {
        let done = Arc::default();
        self.flush.send_replace(Arc::clone(&done));
        Flush { done, rings: self.tasks.len() }
    }

    /// Memory of all rings, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Rings {
    fn drop(&mut self) {
        self.tasks.abort_all();
    }
}

/// Bytes of each ring, a power of two, on a machine with so many CPUs.
fn ring_bytes(cpus: usize) -> u32 {
    let share = ALL_RINGS_BYTES / u32::try_from(cpus).unwrap_or(u32::MAX).max(1);
    let power = 1 << share.max(1).ilog2();
    power.clamp(LEAST_RING_BYTES, MOST_RING_BYTES)
}

async fn drain(
    mut ring: AsyncFd<RingBuf<MapData>>,
    sender: mpsc::Sender<Announcement>,
    mut flush: watch::Receiver<Arc<AtomicUsize>>,
) {
    let mut poll = tokio::time::interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut flushed: Option<Arc<AtomicUsize>> = None;
    loop {
        while let Some(record) = ring.get_mut().next() {
            let Some(announcement) = parse(&record) else { continue };
            drop(record);
            if sender.send(announcement).await.is_err() {
                return;
            }
        }
        if let Some(flushed) = flushed.take() {
            flushed.fetch_add(1, Ordering::Release);
        }
        tokio::select! {
            ready = ring.readable() => match ready {
                Ok(mut ready) => ready.clear_ready(),
                Err(_) => return,
            },
            _ = poll.tick() => {}
            changed = flush.changed() => match changed {
                Ok(()) => flushed = Some(Arc::clone(&flush.borrow_and_update())),
                Err(_) => return,
            },
        }
    }
}

/// Reads a record; `None` for one of a kind that is not known.
fn parse(record: &[u8]) -> Option<Announcement> {
    let kind = u32::from_ne_bytes(record.get(..4)?.try_into().ok()?);
    let of_fault = kind == EventKind::PageFaultStack as u32;
    if (of_fault || kind == EventKind::Stack as u32) && record.len() >= size_of::<StackRecord>() {
        let word = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|byte| record[at + byte]));
        let depth = (word(32) as usize).min(MAX_FRAMES);
        let mut instructions = 0;
        let frames = record[STACK_HEADER..STACK_HEADER + 8 * depth]
            .chunks_exact(8)
            .map(read::<u64>)
            .enumerate()
            .map(|(number, frame)| {
                instructions |= u128::from(frame & INSTRUCTION_FRAME != 0) << number;
                frame & !INSTRUCTION_FRAME
            })
            .collect();
        let stack = Stack {
            slot: word(4) as u16,
            site: read(&record[8..]),
            epoch: word(24),
            end: word(28),
            frame_pointer_steps: word(36),
            time_ns: read(&record[40..]),
            frames,
            instructions,
        };
        let announcement =
            if of_fault { Announcement::PageFaultStack } else { Announcement::Stack };
        return Some(announcement(stack));
    }
    if record.len() < size_of::<ProcessRecord>() {
        return None;
    }
    let process: ProcessRecord = read(record);
    let slot = process.slot as u16;
    if kind == EventKind::Fork as u32 {
        Some(Announcement::Fork { slot, child: process.child })
    } else if kind == EventKind::Exec as u32 {
        Some(Announcement::Exec { slot })
    } else {
        None
    }
}

/// Offsets that [`parse`] relies on.
const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(StackRecord, slot) == 4);
    assert!(offset_of!(StackRecord, site) == 8);
    assert!(offset_of!(StackRecord, epoch) == 24);
    assert!(offset_of!(StackRecord, end) == 28);
    assert!(offset_of!(StackRecord, depth) == 32);
    assert!(offset_of!(StackRecord, frame_pointer_steps) == 36);
    assert!(offset_of!(StackRecord, time_ns) == 40);
    assert!(offset_of!(StackRecord, frames) == STACK_HEADER);
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that rings are what a ring buffer can be, and large on small machines.
    #[test]
    fn rings_share_what_there_is() {
        for (cpus, bytes) in [(1, 1 << 20), (16, 1 << 20), (24, 512 << 10), (128, 256 << 10)] {
            assert_eq!(ring_bytes(cpus), bytes, "{cpus} CPUs");
        }
    }
}
