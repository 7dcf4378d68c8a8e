//! Programs that hold memory after one pattern, named by the argument; see
//! labels.json. A tick is a fiftieth of a second.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::hint::black_box;
use std::rc::Rc;
use std::time::{Duration, Instant};

const TICKS: u64 = 50;

#[derive(Default)]
struct State {
    tick: u64,
    seed: u64,
    map: HashMap<u64, Vec<u8>>,
    queue: VecDeque<Vec<u8>>,
    rows: Vec<Vec<u8>>,
}

impl State {
    fn chance(&mut self, limit: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.seed >> 33) % limit
    }
}

fn text(length: usize) -> Vec<u8> {
    black_box(vec![b'x'; length])
}

struct Node {
    next: RefCell<Option<Rc<Node>>>,
    name: [u8; 120],
}

#[inline(never)]
fn leak_a_cycle(state: &mut State) {
    if state.tick % 10 == 0 {
        let one = Rc::new(Node { next: RefCell::new(None), name: [b'x'; 120] });
        *one.next.borrow_mut() = Some(Rc::clone(&one));
        black_box(one.name);
    }
}

#[inline(never)]
fn leak_by_forgetting(state: &mut State) {
    let request = text(250);
    if state.chance(30) == 0 {
        std::mem::forget(request);
    }
}

#[inline(never)]
fn leak_names(state: &mut State) {
    if state.tick % 15 == 0 {
        black_box(Box::leak(Box::new([state.tick; 20])));
    }
}

#[inline(never)]
fn leak_by_a_map_without_removal(state: &mut State) {
    state.map.insert(state.tick, text(80));
}

#[inline(never)]
fn leak_raw(state: &mut State) {
    if state.tick % 6 == 0 {
        black_box(Box::into_raw(Box::new([1u8; 333])));
    }
}

fn interning(state: &mut State) {
    let key = state.chance(400);
    state.map.entry(key).or_insert_with(|| text(150));
}

fn bounded_queue(state: &mut State) {
    state.queue.push_back(text(500));
    if state.queue.len() > 300 {
        state.queue.pop_front();
    }
}

fn rows_by_batch(state: &mut State) {
    state.rows.push(text(300));
    if state.tick % (8 * TICKS) == 0 {
        state.rows = Vec::new();
    }
}

fn messages(state: &mut State) {
    let (sender, receiver) = std::sync::mpsc::channel();
    for _ in 0..20 {
        let length = 100 + state.chance(400) as usize;
        let _ = sender.send(text(length));
    }
    drop(sender);
    black_box(receiver.iter().map(|message| message.len()).sum::<usize>());
}

// Held out: see labels.json.

#[inline(never)]
fn leak_messages_that_nobody_takes(state: &mut State) {
    state.queue.push_back(text(90));
}

fn slots_that_are_reused(state: &mut State) {
    let slot = state.chance(800) as usize;
    if state.rows.len() <= slot {
        state.rows.resize_with(slot + 1, Vec::new);
    }
    state.rows[slot] = text(200 + slot);
}

// Held out from the second judge.

/// Tasks by number; of those that are done, one in ten stays.
#[inline(never)]
fn leak_finished_tasks(state: &mut State) {
    let tick = state.tick;
    let task = text(180);
    state.map.insert(tick, task);
    if tick >= 100 && state.chance(10) > 0 {
        state.map.remove(&(tick - 100));
    }
}

/// 500 places, taken and given back in any order.
fn places_with_generations(state: &mut State) {
    for _ in 0..3 {
        let place = state.chance(500) as usize;
        if state.rows.len() < 500 {
            state.rows.resize_with(500, Vec::new);
        }
        state.rows[place] = if state.chance(2) == 0 { Vec::new() } else { text(350) };
    }
}

fn main() {
    let step: fn(&mut State) = match std::env::args().nth(1).as_deref() {
        Some("leak_a_cycle") => leak_a_cycle,
        Some("leak_by_forgetting") => leak_by_forgetting,
        Some("leak_names") => leak_names,
        Some("leak_by_a_map_without_removal") => leak_by_a_map_without_removal,
        Some("leak_raw") => leak_raw,
        Some("interning") => interning,
        Some("bounded_queue") => bounded_queue,
        Some("rows_by_batch") => rows_by_batch,
        Some("messages") => messages,
        Some("leak_messages_that_nobody_takes") => leak_messages_that_nobody_takes,
        Some("slots_that_are_reused") => slots_that_are_reused,
        Some("leak_finished_tasks") => leak_finished_tasks,
        Some("places_with_generations") => places_with_generations,
        _ => std::process::exit(2),
    };
    println!("ready {}", std::process::id());
    let mut state = State { seed: 1, ..State::default() };
    // By the clock: on a busy machine memory is to grow when it should.
    let start = Instant::now();
    loop {
        while state.tick <= start.elapsed().as_millis() as u64 * TICKS / 1000 {
            step(&mut state);
            state.tick += 1;
        }
        std::thread::sleep(Duration::from_millis(1000 / TICKS));
    }
}
