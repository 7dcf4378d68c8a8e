//! A Rust server that forgets one 264-byte `Order` a round, in
//! `leak_orders`, among honest strings, maps, vectors and a worker thread.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::mpsc;

struct Order {
    number: u64,
    lines: [u8; 256],
}

#[inline(never)]
fn leak_orders(number: u64) {
    let order = Box::leak(Box::new(Order { number, lines: [7; 256] }));
    std::hint::black_box(&order.lines);
    std::hint::black_box(order.number);
}

#[inline(never)]
fn honest_round(number: u64, names: &mut HashMap<u64, String>, worker: &mpsc::SyncSender<Vec<u8>>) {
    names.insert(number % 50, "n".repeat(20 + (number % 300) as usize));
    if number % 7 == 0 {
        names.remove(&(number % 50));
    }
    let mut growing = Vec::new();
    growing.extend((0..number % 500).map(|n| n as u8));
    // Freed by the other thread.
    worker.send(growing).expect("the worker has gone");
}

fn truth(rounds: u64) -> String {
    format!(
        "{{\"rounds\":{rounds},\"leaked_blocks\":{rounds},\"leaked_bytes\":{}}}\n",
        rounds * std::mem::size_of::<Order>() as u64
    )
}

fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()).expect("nobody listens");
}

fn main() {
    let limit = std::env::var("ROUNDS").ok().map(|limit| limit.parse::<u64>().expect("ROUNDS"));
    let (worker, blocks) = mpsc::sync_channel::<Vec<u8>>(16);
    let freeing = std::thread::spawn(move || blocks.iter().map(|block| block.len()).sum::<usize>());
    let (asked, questions) = mpsc::channel();
    if limit.is_none() {
        std::thread::spawn(move || {
            let mut input = [0; 64];
            loop {
                match std::io::stdin().read(&mut input) {
                    Ok(0) | Err(_) => return, // drops the sender: the end
                    Ok(length) => {
                        for _ in input[..length].iter().filter(|byte| **byte == b'\n') {
                            asked.send(()).expect("main has gone");
                        }
                    }
                }
            }
        });
    } else {
        std::mem::forget(asked);
    }
    let mut names = HashMap::new();
    let mut rounds = 0;
    // As common.h has it.
    let emulated = std::env::var_os("LEAKD_TEST_SCALE").is_some();
    let pause = std::time::Duration::from_millis(if emulated { 20 } else { 1 });
    say(&format!("ready {}\n", std::process::id()));
    while limit.is_none_or(|limit| rounds < limit) {
        honest_round(rounds, &mut names, &worker);
        leak_orders(rounds);
        rounds += 1;
        match questions.try_recv() {
            Ok(()) => say(&truth(rounds)),
            Err(mpsc::TryRecvError::Disconnected) => break,
            Err(mpsc::TryRecvError::Empty) if limit.is_none() => {
                std::thread::sleep(pause);
            }
            Err(mpsc::TryRecvError::Empty) => {}
        }
    }
    drop(names);
    drop(worker);
    freeing.join().expect("the worker panicked");
    say(&truth(rounds));
}
