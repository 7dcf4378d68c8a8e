//! A trace from beginning to report: the engine's numbers and the
//! symbolizer's names come together here.

mod collect;
mod history;

pub use collect::Prepared;
pub(crate) use collect::site_ages;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::engine::follow::Event;
use crate::engine::target::{Ended, SeenFrom, Target};
use crate::engine::{Engine, EngineError};
use crate::report::input::Snapshot;
use crate::symbol::Symbolizer;
use crate::verdict::sites::SiteHistories;
use history::Histories;

/// What the rings are waited for, at most.
const RINGS_WAIT: Duration = Duration::from_secs(2);
/// What is waited for at the end of a trace, for names that are not there yet.
const NAMES_WAIT: Duration = Duration::from_secs(20);

/// One or more processes under trace.
#[derive(Debug)]
pub struct Trace {
    engine: Engine,
    symbolizer: Arc<Symbolizer>,
    started: SystemTime,
    histories: Option<Histories>,
}

impl Trace {
    /// A trace by an engine that has passed its canary.
    pub fn new(engine: Engine) -> Self {
        Self {
            engine,
            symbolizer: Arc::new(Symbolizer::start()),
            started: SystemTime::now(),
            histories: None,
        }
    }

    /// Remembers what call sites held over time, for their verdicts. Who does
    /// that itself hands it to [`Trace::look`].
    pub fn remembering(self) -> Self {
        Self { histories: Some(Histories::new()), ..self }
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The engine, to change what it does.
    pub fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// Puts a process under trace.
    pub fn attach(&mut self, pid: u32, seen_from: SeenFrom) -> Result<u16, EngineError> {
        self.engine.attach(pid, seen_from)
    }

    /// Waits for the next thing that the probes tell, and acts on it; gives the
    /// slot of a child that was put under trace. Cancel-safe.
    pub async fn step(&mut self) -> Option<u16> {
        let Some(announcement) = self.engine.next().await else {
            // The rings are gone: nothing more will come.
            return std::future::pending().await;
        };
        let event = self.engine.handle(announcement);
        self.react(event)
    }

    /// To be called a few times a second.
    pub fn tick(&mut self) {
        self.engine.tick();
        if let Some(histories) = &mut self.histories {
            histories.look(&self.engine);
        }
    }

    fn react(&mut self, event: Option<Event>) -> Option<u16> {
        match event {
            Some(Event::NewSite { slot, site }) => {
                // Names are looked up while the process lives.
                if let Some(target) = self.engine.target(slot) {
                    self.symbolizer.request(target.code_addresses(site).collect());
                }
            }
            Some(Event::Forked { child, .. }) if is_process(child) => {
                match self.engine.attach(child, SeenFrom::Attach) {
                    Ok(slot) => return Some(slot),
                    Err(EngineError::Twice(_)) => {}
                    Err(error) => tracing::warn!("child process {child}: {error}"),
                }
            }
            _ => {}
        }
        None
    }

    /// Whether any target still runs.
    pub fn any_running(&self) -> bool {
        self.engine.any_running()
    }

    /// Handles what has been announced and not been waited for.
    pub fn drain(&mut self) {
        while let Some(announcement) = self.engine.try_next() {
            let event = self.engine.handle(announcement);
            self.react(event);
        }
    }

    /// Handles all that has been announced by now, also what is in the rings.
    fn drain_rings(&mut self) {
        let (flush, begin) = (self.engine.flush(), Instant::now());
        while !flush.is_done() && begin.elapsed() < RINGS_WAIT {
            self.drain();
            std::thread::sleep(Duration::from_micros(100));
        }
        self.drain();
    }

    /// Who names addresses.
    pub fn symbolizer(&self) -> &Arc<Symbolizer> {
        &self.symbolizer
    }

    /// Takes a look at one target, while it goes on; `history`: what it held so far.
    pub fn look(
        &mut self,
        slot: u16,
        min_age: Duration,
        history: Option<&SiteHistories>,
    ) -> io::Result<Option<Prepared>> {
        self.drain();
        self.engine.catch_up(slot);
        let Some(target) = self.engine.target(slot) else { return Ok(None) };
        let look = self.engine.look(target, Some(min_age))?;
        self.drain();
        Ok(self.engine.target(slot).map(|target| collect::prepare(target, look, history)))
    }

    /// Takes the final look at all targets, takes all probes out, and names
    /// what was found.
    ///
    /// The look comes before the detach: from the moment that a probe is gone,
    /// the ledger no longer tells the truth.
    pub fn finish(mut self, min_age: Duration) -> io::Result<Snapshot> {
        self.engine.tick();
        let ended = SystemTime::now();
        self.drain_rings();
        let slots: Vec<u16> = self.engine.targets().map(Target::slot).collect();
        slots.into_iter().for_each(|slot| self.engine.catch_up(slot));
        let mut looks = Vec::new();
        for target in self.engine.targets() {
            // What a process left behind at its end is old enough.
            let age = if target.ended() == Ended::Exited { Duration::ZERO } else { min_age };
            looks.push((target.slot(), self.engine.look(target, Some(age))?));
        }
        self.drain_rings();
        let mut prepared: Vec<Prepared> = looks
            .into_iter()
            .filter_map(|(slot, look)| {
                let target: &Target = self.engine.target(slot)?;
                let history = self.histories.as_ref().and_then(|all| all.of(slot));
                Some(collect::prepare(target, look, history))
            })
            .collect();
        prepared.iter_mut().for_each(Prepared::compose);
        self.engine.stop_probes();
        let name = |one: Prepared| one.name(&self.symbolizer, NAMES_WAIT);
        let targets = prepared.into_iter().map(name).collect();
        Ok(Snapshot {
            started: self.started,
            ended,
            host: crate::preflight::host(),
            kernel: crate::preflight::release(),
            targets,
        })
    }
}

/// Whether this id is that of a process, not of a thread of one.
fn is_process(id: u32) -> bool {
    procfs::process::Process::new(id as i32)
        .and_then(|process| process.status())
        .is_ok_and(|status| status.tgid as u32 == id)
}
