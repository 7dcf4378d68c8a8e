//! From the engine's numbers to what the report is made of.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use leakd_common::event::StackEnd;
use leakd_common::site::Site;

use crate::engine::probes::ProbedFunction;
use crate::engine::snapshot::SiteBlocks;
use crate::engine::target::{Ended, SeenFrom, Target, TargetLook};
use crate::report::input::{SiteAges, SiteSnapshot, TargetSnapshot};
use crate::report::model;
use crate::symbol::{CodeAddress, Frame, Symbolizer};

/// Ages that are kept of each site.
const AGE_SAMPLES: usize = 100;

/// A target's numbers, and what has to be named. It does not need the target
/// any more.
#[derive(Debug)]
pub struct Prepared {
    snapshot: TargetSnapshot,
    addresses: Vec<CodeAddress>,
}

impl Prepared {
    /// Names the call sites; waits at most so long for what is not known yet.
    pub fn name(mut self, symbolizer: &Symbolizer, wait: Duration) -> TargetSnapshot {
        let names = names(&self.addresses, symbolizer, wait);
        for site in &mut self.snapshot.sites {
            let unnamed = |address| vec![Frame { address, ..Frame::default() }];
            site.frames = site
                .addresses
                .iter()
                .map(|address| names.get(address).cloned().unwrap_or_else(|| unnamed(*address)))
                .collect();
        }
        self.snapshot
    }
}

/// Puts a target's numbers together with what has to be named.
pub(super) fn prepare(target: &Target, mut look: TargetLook) -> Prepared {
    let addresses = addresses(target, &look);
    let ages: Option<HashMap<u64, SiteAges>> = look.blocks.take().map(|blocks| {
        blocks.into_iter().map(|(site, blocks)| (site, site_ages(blocks, look.now_ns))).collect()
    });
    let sites = look
        .sites
        .iter()
        .map(|(&key, &site)| site_snapshot(target, key, site, ages.as_ref()))
        .collect();
    let duration_ns = target.duration().as_nanos() as u64;
    let filling_ns = match target.windows().count() {
        1 => target.duration(),
        _ => target.windows().last_for(),
    }
    .as_nanos() as u64;
    let snapshot = TargetSnapshot {
        pid: target.pid(),
        comm: target.info().comm.clone(),
        exe: target.info().exe.clone(),
        ended: match target.ended() {
            Ended::Exited => model::Ended::Exited,
            Ended::Running if target.execs() > 0 => model::Ended::Exec,
            Ended::Running => model::Ended::Running,
        },
        duration_ns,
        filling_ns,
        seen_from: match target.seen_from() {
            SeenFrom::Attach => model::SeenFrom::Attach,
            SeenFrom::Start => model::SeenFrom::Start,
        },
        counters: look.counters,
        sample_bytes: target.sample_bytes(),
        table_bytes: look.table_bytes,
        windows: model::Windows {
            count: target.windows().count(),
            open_ns: target.windows().open_for().as_nanos() as u64,
        },
        probes: target.probes().functions().iter().map(probe).collect(),
        sites,
    };
    Prepared { snapshot, addresses }
}

fn probe(function: &ProbedFunction) -> model::Probe {
    model::Probe {
        symbol: function.symbol.clone(),
        module: function.module.clone(),
        cost: match function.single_stepped {
            Some(_) => model::ProbeCost::SingleStepped,
            None => model::ProbeCost::Emulated,
        },
    }
}

/// The addresses that occur in the stacks of what is outstanding.
fn addresses(target: &Target, look: &TargetLook) -> Vec<CodeAddress> {
    // What leaks most is named first, should time run out.
    let mut keys: Vec<(u64, u64)> = look
        .sites
        .iter()
        .filter(|(_, site)| site.outstanding_blocks() > 0)
        .map(|(key, site)| (site.outstanding_bytes(), *key))
        .collect();
    keys.sort_unstable_by(|a, b| b.cmp(a));
    let mut seen = HashSet::new();
    let stacks = keys.into_iter().filter_map(|(_, key)| target.stack(key));
    stacks
        .flat_map(|stack| stack.frames.iter())
        .filter(|address| seen.insert(**address))
        .map(|address| target.code_address(*address))
        .collect()
}

/// The frames of each address.
fn names(
    addresses: &[CodeAddress],
    symbolizer: &Symbolizer,
    wait: Duration,
) -> HashMap<u64, Vec<Frame>> {
    let deadline = Instant::now() + wait;
    let mut names = HashMap::with_capacity(addresses.len());
    for chunk in addresses.chunks(256) {
        let left = deadline.saturating_duration_since(Instant::now());
        for (address, frames) in chunk.iter().zip(symbolizer.resolve(chunk, left)) {
            names.insert(address.address(), frames);
        }
    }
    names
}

fn site_snapshot(
    target: &Target,
    key: u64,
    site: Site,
    ages: Option<&HashMap<u64, SiteAges>>,
) -> SiteSnapshot {
    let stack = target.stack(key);
    let addresses: Vec<u64> = stack.map(|stack| stack.frames.to_vec()).unwrap_or_default();
    SiteSnapshot {
        key,
        site,
        ages: ages.map(|ages| ages.get(&key).cloned().unwrap_or_default()),
        frames: Vec::new(),
        addresses,
        end: stack.and_then(|stack| StackEnd::from_number(stack.end)),
        frame_pointer_steps: stack.map_or(0, |stack| stack.frame_pointer_steps),
    }
}

fn site_ages(mut blocks: SiteBlocks, now_ns: u64) -> SiteAges {
    blocks.births.sort_unstable();
    let births = &blocks.births;
    let age = |birth: u64| now_ns.saturating_sub(birth);
    let step = births.len().div_ceil(AGE_SAMPLES).max(1);
    SiteAges {
        aged_blocks: blocks.aged_blocks,
        aged_bytes: blocks.aged_bytes,
        oldest_ns: births.first().map_or(0, |&birth| age(birth)),
        median_ns: births.get(births.len() / 2).map_or(0, |&birth| age(birth)),
        sample_ns: births.iter().step_by(step).map(|&birth| age(birth)).collect(),
    }
}
