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
use crate::symbol::{CodeAddress, Frame, Lookup, Symbolizer};

/// Ages that are kept of each site.
const AGE_SAMPLES: usize = 100;

/// A target's numbers, and what has to be named. It does not need the target
/// any more.
#[derive(Debug)]
pub struct Prepared {
    snapshot: TargetSnapshot,
    /// What has to be named.
    wanted: Vec<((u64, Lookup), CodeAddress)>,
    /// For each site its addresses, in the order of the sites.
    stacks: Vec<Vec<(u64, Lookup)>>,
}

impl Prepared {
    /// Names the call sites; waits at most so long for what is not known yet.
    pub fn name(mut self, symbolizer: &Symbolizer, wait: Duration) -> TargetSnapshot {
        let names = names(&self.wanted, symbolizer, wait);
        let unnamed = |address| vec![Frame { address, ..Frame::default() }];
        for (site, stack) in self.snapshot.sites.iter_mut().zip(&self.stacks) {
            site.frames = stack
                .iter()
                .map(|key| names.get(key).cloned().unwrap_or_else(|| unnamed(key.0)))
                .collect();
        }
        self.snapshot
    }
}

/// Puts a target's numbers together with what has to be named.
pub(super) fn prepare(target: &Target, mut look: TargetLook) -> Prepared {
    let wanted = addresses(target, &look);
    let stacks = look.sites.keys().map(|&key| stack(target, key)).collect();
    let ages: Option<HashMap<u64, SiteAges>> = look.blocks.take().map(|blocks| {
        blocks.into_iter().map(|(site, blocks)| (site, site_ages(blocks, look.now_ns))).collect()
    });
    let sites = look
        .sites
        .iter()
        .map(|(&key, &site)| site_snapshot(target, key, site, ages.as_ref()))
        .collect();
    // What is in the tables is from the last window.
    let duration_ns = match target.windows().count() {
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
    Prepared { snapshot, wanted, stacks }
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

/// The addresses of a call site, innermost first, and how to look them up.
fn stack(target: &Target, key: u64) -> Vec<(u64, Lookup)> {
    target.stack(key).map(|stack| stack.addresses().collect()).unwrap_or_default()
}

/// The addresses that occur in the stacks of what is outstanding.
fn addresses(target: &Target, look: &TargetLook) -> Vec<((u64, Lookup), CodeAddress)> {
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
        .flat_map(|stack| stack.addresses())
        .filter(|key| seen.insert(*key))
        .map(|key| (key, target.code_address(key.0, key.1)))
        .collect()
}

/// The frames of each address.
fn names(
    wanted: &[((u64, Lookup), CodeAddress)],
    symbolizer: &Symbolizer,
    wait: Duration,
) -> HashMap<(u64, Lookup), Vec<Frame>> {
    let deadline = Instant::now() + wait;
    let mut names = HashMap::with_capacity(wanted.len());
    for chunk in wanted.chunks(256) {
        let left = deadline.saturating_duration_since(Instant::now());
        let code: Vec<CodeAddress> = chunk.iter().map(|(_, code)| code.clone()).collect();
        let keys = chunk.iter().map(|(key, _)| *key);
        names.extend(keys.zip(symbolizer.resolve(&code, left)));
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
    SiteSnapshot {
        key,
        site,
        ages: ages.map(|ages| ages.get(&key).cloned().unwrap_or_default()),
        frames: Vec::new(),
        addresses: stack.map(|stack| stack.frames.to_vec()).unwrap_or_default(),
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
