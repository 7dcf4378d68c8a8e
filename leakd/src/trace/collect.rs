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

/// Names a target's call sites and puts them together with their numbers.
pub(super) fn target(
    target: &Target,
    mut look: TargetLook,
    symbolizer: &Symbolizer,
    wait: Duration,
) -> TargetSnapshot {
    let names = Names::of(target, &look, symbolizer, wait);
    let ages: Option<HashMap<u64, SiteAges>> = look.blocks.take().map(|blocks| {
        blocks.into_iter().map(|(site, blocks)| (site, site_ages(blocks, look.now_ns))).collect()
    });
    let sites = look
        .sites
        .iter()
        .map(|(&key, &site)| site_snapshot(target, key, site, ages.as_ref(), &names))
        .collect();
    let duration_ns = target.duration().as_nanos() as u64;
    TargetSnapshot {
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
        windows: model::Windows { count: 1, open_ns: duration_ns },
        probes: target.probes().functions().iter().map(probe).collect(),
        sites,
    }
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

/// The frames of each address that occurs in a stack of the report.
struct Names(HashMap<(u64, Lookup), Vec<Frame>>);

impl Names {
    fn of(target: &Target, look: &TargetLook, symbolizer: &Symbolizer, wait: Duration) -> Self {
        // What leaks most is named first, should time run out.
        let mut keys: Vec<(u64, u64)> = look
            .sites
            .iter()
            .filter(|(_, site)| site.outstanding_blocks() > 0)
            .map(|(key, site)| (site.outstanding_bytes(), *key))
            .collect();
        keys.sort_unstable_by(|a, b| b.cmp(a));
        let mut wanted: Vec<(u64, Lookup)> = Vec::new();
        let mut seen = HashSet::new();
        for (_, key) in keys {
            let Some(stack) = target.stack(key) else { continue };
            wanted.extend(stack.addresses().filter(|address| seen.insert(*address)));
        }
        let deadline = Instant::now() + wait;
        let mut names = HashMap::with_capacity(wanted.len());
        for chunk in wanted.chunks(256) {
            let left = deadline.saturating_duration_since(Instant::now());
            let code: Vec<CodeAddress> = chunk
                .iter()
                .map(|&(address, lookup)| target.code_address(address, lookup))
                .collect();
            names.extend(chunk.iter().copied().zip(symbolizer.resolve(&code, left)));
        }
        Self(names)
    }

    fn frames(&self, (address, lookup): (u64, Lookup)) -> Vec<Frame> {
        let names = self.0.get(&(address, lookup)).cloned();
        names.unwrap_or_else(|| vec![Frame { address, ..Frame::default() }])
    }
}

fn site_snapshot(
    target: &Target,
    key: u64,
    site: Site,
    ages: Option<&HashMap<u64, SiteAges>>,
    names: &Names,
) -> SiteSnapshot {
    let stack = target.stack(key);
    SiteSnapshot {
        key,
        site,
        ages: ages.map(|ages| ages.get(&key).cloned().unwrap_or_default()),
        frames: stack
            .map(|stack| stack.addresses().map(|address| names.frames(address)).collect())
            .unwrap_or_default(),
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
