//! Requests to a server, from threads of the test.

use crate::{
    host::stretched,
    support::{PATIENCE, wait_for},
};
use std::{
    process::ChildStdin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Clients at work until they are stopped.
pub struct Load {
    stopping: Arc<AtomicBool>,
    requests: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
    /// A program that makes its own traffic until this is closed.
    program: Option<(ChildStdin, Instant)>,
}

impl Load {
    /// Starts `clients` threads. Each calls `connect` once and then what it
    /// gave, with the number of the request, again and again.
    pub fn start<Request: FnMut(u64)>(
        clients: usize,
        connect: impl Fn() -> Request + Clone + Send + 'static,
    ) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let requests = Arc::new(AtomicU64::new(0));
        let threads = (0..clients)
            .map(|_| {
                let (connect, stopping, requests) =
                    (connect.clone(), stopping.clone(), requests.clone());
                std::thread::spawn(move || {
                    let mut request = connect();
                    while !stopping.load(Relaxed) {
                        request(requests.fetch_add(1, Relaxed));
                        // A server at a thousand requests a second, not one
                        // at its limit; fewer where that is the limit.
                        std::thread::sleep(Duration::from_millis(stretched(1).min(10)));
                    }
                })
            })
            .collect();
        Self { stopping, requests, threads, program: None }
    }

    /// For a program that makes its own traffic, in rounds of a millisecond.
    pub fn of_the_program_itself(stdin: ChildStdin) -> Self {
        Self {
            stopping: Arc::default(),
            requests: Arc::default(),
            threads: Vec::new(),
            program: Some((stdin, Instant::now())),
        }
    }

    /// Requests so far; of a program on its own, milliseconds.
    pub fn requests(&self) -> u64 {
        self.program.as_ref().map_or_else(
            || self.requests.load(Relaxed),
            |(_, start)| u64::try_from(start.elapsed().as_millis()).expect("not that long"),
        )
    }

    /// Waits until so many requests have been made in all.
    pub fn wait_for_requests(&self, number: u64) {
        wait_for("requests", || (self.requests() >= number).then_some(()));
    }

    /// Lets the clients finish what they are at; a program on its own goes on
    /// until it is dropped.
    pub fn stop(&mut self) {
        self.stopping.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let start = Instant::now();
            while !thread.is_finished() {
                assert!(start.elapsed() < PATIENCE, "a client hangs");
                std::thread::sleep(Duration::from_millis(1));
            }
            thread.join().expect("a client failed");
        }
    }

    /// Ends a program that makes its own traffic.
    pub fn end_program(&mut self) {
        self.program = None;
    }
}
