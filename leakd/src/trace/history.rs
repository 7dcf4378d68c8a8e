//! What targets held over time, for the verdicts at the end of a trace.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use leakd_common::target::Counter;
use procfs::process::Process;

use crate::engine::Engine;
use crate::engine::target::{Ended, Target};
use crate::verdict::sites::{Keep, SiteHistories};

/// Between two looks at least.
const INTERVAL: Duration = Duration::from_secs(1);
/// They take at most this part of the time.
const SHARE: u32 = 100;

/// The histories of all targets, by their slots.
#[derive(Debug)]
pub(super) struct Histories {
    of: HashMap<u16, SiteHistories>,
    began: Instant,
    next: Instant,
}

impl Histories {
    pub fn new() -> Self {
        let now = Instant::now();
        Self { of: HashMap::new(), began: now, next: now }
    }

    /// Looks at all targets, if it is time to.
    pub fn look(&mut self, engine: &Engine) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        let seconds = now.duration_since(self.began).as_secs_f64();
        for target in engine.targets().filter(|target| target.ended() == Ended::Running) {
            match engine.look(target, None) {
                Ok(look) => {
                    let new = || SiteHistories::new(Keep::Whole);
                    let history = self.of.entry(target.slot()).or_insert_with(new);
                    history.push(seconds, &look.sites);
                    let unknown = look.counters.get(Counter::UnknownFrees);
                    history.push_process(seconds, memory(target), unknown);
                }
                Err(error) => tracing::debug!("looking at process {}: {error}", target.pid()),
            }
        }
        self.next = Instant::now() + INTERVAL.max(now.elapsed() * SHARE);
    }

    pub fn of(&self, slot: u16) -> Option<&SiteHistories> {
        self.of.get(&slot)
    }
}

/// The anonymous memory of a process, resident or in swap, in bytes.
fn memory(target: &Target) -> Option<u64> {
    let status = Process::new(target.pid() as i32).and_then(|process| process.status()).ok()?;
    Some((status.rssanon? + status.vmswap.unwrap_or(0)) * 1024)
}
