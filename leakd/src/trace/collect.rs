//! From the engine's numbers to what the report is made of.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use leakd_common::bad_free::{BadFree, BadFreeKey};
use leakd_common::event::StackEnd;
use leakd_common::site::Site;

use crate::elf::FileIdentity;
use crate::engine::probes::{ProbedFunction, UnprobedFunction};
use crate::engine::resident::ResidentSource;
use crate::engine::snapshot::SiteBlocks;
use crate::engine::target::{Ended, SeenFrom, Target, TargetLook};
use crate::report::input::{BadFreeSnapshot, SiteAges, SiteSnapshot, TargetSnapshot};
use crate::report::memory::Memory;
use crate::report::model;
use crate::symbol::{self, CodeAddress, Frame, Lookup, Symbolizer};
use crate::verdict::births::Births;
use crate::verdict::sites::SiteHistories;
use crate::watch::limit::Limits;

/// Ages that are kept of each site.
const AGE_SAMPLES: usize = 100;

/// A target's numbers, and what has to be named. It does not need the target
/// any more.
#[derive(Debug)]
pub struct Prepared {
    snapshot: TargetSnapshot,
    /// What is on each stack: those of wrong frees, then those of sites.
    places: Vec<Vec<Place>>,
    addresses: Vec<CodeAddress>,
    resident: Option<ResidentSource>,
    /// Its ledger has every block and every free.
    whole: bool,
}

impl Prepared {
    /// Its probes are out from now on: what it frees, the ledger does not learn.
    #[must_use]
    pub fn detached(mut self) -> Self {
        self.whole = false;
        self
    }

    /// Finds out where its resident memory goes, if it still runs.
    pub(super) fn compose(&mut self) {
        let Some(source) = self.resident.take() else { return };
        self.snapshot.limit = Limits::find().of(self.snapshot.pid);
        match source.compose() {
            Ok(found) => self.snapshot.memory = Some(Memory::new(&found, self.whole)),
            Err(error) => {
                let pid = self.snapshot.pid;
                tracing::debug!("resident memory of process {pid}: {error}");
            }
        }
    }

    /// Names the call sites; waits at most so long for what is not known yet.
    pub fn name(mut self, symbolizer: &Symbolizer, wait: Duration) -> TargetSnapshot {
        self.compose();
        let names = names(&self.addresses, symbolizer, wait);
        let bad = self.snapshot.bad_frees.iter_mut().flatten();
        let bad = bad.flat_map(|one| {
            [Some(&mut one.site), one.freed_at.as_mut(), one.allocated_at.as_mut()]
        });
        for (site, places) in bad.flatten().chain(&mut self.snapshot.sites).zip(&self.places) {
            let unnamed = |place: &Place| vec![Frame { address: place.0, ..Frame::default() }];
            site.frames = places
                .iter()
                .map(|place| names.get(place).cloned().unwrap_or_else(|| unnamed(place)))
                .collect();
        }
        self.snapshot
    }
}

/// Puts a target's numbers together with what has to be named.
pub(super) fn prepare(
    target: &Target,
    mut look: TargetLook,
    history: Option<&SiteHistories>,
) -> Prepared {
    let addresses = addresses(target, &look);
    let ages: Option<HashMap<u64, SiteAges>> = look.blocks.take().map(|blocks| {
        let of = |blocks| site_ages(blocks, target.began_ns(), look.now_ns);
        blocks.into_iter().map(|(site, blocks)| (site, of(blocks))).collect()
    });
    let (sites, site_places): (_, Vec<_>) = look
        .sites
        .iter()
        .map(|(&key, &site)| site_snapshot(target, key, site, ages.as_ref(), history))
        .unzip();
    let duration_ns = target.duration().as_nanos() as u64;
    let filling_ns = match target.windows().count() {
        1 => target.duration(),
        _ => target.windows().filling_for(),
    }
    .as_nanos() as u64;
    let places = bad_free_keys(&look).filter(|key| *key != 0);
    let places = places.map(|key| target.code_addresses(key).map(|one| place(&one)).collect());
    let places = places.chain(site_places).collect();
    let bad_frees: Option<Vec<BadFreeSnapshot>> = look
        .bad_frees
        .as_ref()
        .map(|found| found.iter().map(|(key, bad)| bad_free(target, key, bad)).collect());
    let snapshot = TargetSnapshot {
        pid: target.pid(),
        comm: target.info().comm.clone(),
        exe: target.info().exe.clone(),
        ended: match target.ended() {
            Ended::Exited => model::Ended::Exited,
            Ended::Running if look.execs > 0 => model::Ended::Exec,
            Ended::Running => model::Ended::Running,
        },
        duration_ns,
        filling_ns,
        min_age_ns: look.min_age.as_nanos() as u64,
        seen_from: match target.seen_from() {
            SeenFrom::Attach => model::SeenFrom::Attach,
            SeenFrom::Start => model::SeenFrom::Start,
        },
        counters: look.counters,
        execs: look.execs,
        sample_bytes: target.sample_bytes(),
        table_bytes: look.table_bytes,
        windows: model::Windows {
            count: target.windows().count(),
            open_ns: target.windows().open_for().as_nanos() as u64,
        },
        probes: target.probes().functions().iter().map(probe).collect(),
        without_table: target.without_table().clone(),
        unprobed: target.probes().unprobed().iter().map(unprobed).collect(),
        replaced_per_second: history.and_then(SiteHistories::replaced_per_second),
        limit: None,
        memory_growth: history.and_then(SiteHistories::memory),
        sites,
        memory: None,
        bad_frees,
        kernel: None,
    };
    let resident = target.resident_source().inspect_err(|error| {
        tracing::debug!("resident memory of process {}: {error}", target.pid());
    });
    let whole = target.sample_bytes() == 0 && target.generation().is_some();
    Prepared { snapshot, places, addresses, resident: resident.ok().flatten(), whole }
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

fn unprobed(function: &UnprobedFunction) -> model::Unprobed {
    model::Unprobed {
        symbol: function.symbol.clone(),
        module: function.module.clone(),
        reason: function.reason.to_owned(),
    }
}

/// An address, how it is looked up, and what was mapped there: a file and the
/// offset in it.
type Place = (u64, Lookup, Option<(FileIdentity, u64)>);

fn place(address: &CodeAddress) -> Place {
    match address {
        CodeAddress::File { object, offset, address, lookup } => {
            (*address, *lookup, Some((*object.identity(), *offset)))
        }
        CodeAddress::Jit { address, lookup, .. } => (*address, *lookup, None),
        CodeAddress::Unmapped { address } => (*address, Lookup::Return, None),
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
    let keys = bad_free_keys(look).chain(keys.iter().map(|(_, key)| *key));
    let addresses = keys.flat_map(|key| target.code_addresses(key));
    addresses.filter(|address| seen.insert(place(address))).collect()
}

/// The frames of each address.
fn names(
    addresses: &[CodeAddress],
    symbolizer: &Symbolizer,
    wait: Duration,
) -> HashMap<Place, Vec<Frame>> {
    let deadline = Instant::now() + wait;
    let mut names = HashMap::with_capacity(addresses.len());
    for chunk in addresses.chunks(256) {
        let left = deadline.saturating_duration_since(Instant::now());
        for (address, frames) in chunk.iter().zip(symbolizer.resolve(chunk, left)) {
            names.insert(place(address), frames);
        }
    }
    names
}

fn site_snapshot(
    target: &Target,
    key: u64,
    site: Site,
    ages: Option<&HashMap<u64, SiteAges>>,
    history: Option<&SiteHistories>,
) -> (SiteSnapshot, Vec<Place>) {
    let stack = target.stack(key);
    let code: Vec<CodeAddress> = target.code_addresses(key).collect();
    let places: Vec<Place> = code.iter().map(place).collect();
    let mut files = DefaultHasher::new();
    for (_, _, file) in &places {
        file.map(|(file, _)| file).hash(&mut files);
    }
    let snapshot = SiteSnapshot {
        key,
        site,
        ages: ages.map(|ages| ages.get(&key).cloned().unwrap_or_default()),
        growth: history.and_then(|history| history.site(key)),
        frames: Vec::new(),
        addresses: places.iter().map(|(address, ..)| *address).collect(),
        files: files.finish(),
        outermost: code.last().and_then(module),
        end: stack.and_then(|stack| StackEnd::from_number(stack.end)),
        frame_pointer_steps: stack.map_or(0, |stack| stack.frame_pointer_steps),
        kernel: None,
    };
    (snapshot, places)
}

fn bad_free(target: &Target, key: &BadFreeKey, bad: &BadFree) -> BadFreeSnapshot {
    let twice = key.freed_at != 0;
    let site = |key: u64| site_snapshot(target, key, Site::EMPTY, None, None).0;
    BadFreeSnapshot {
        bad: *bad,
        site: site(key.site),
        freed_at: twice.then(|| site(key.freed_at)),
        allocated_at: twice.then(|| site(bad.allocated_at)),
    }
}

/// The call sites of wrong frees: that, the one before, and that of the allocation.
fn bad_free_keys(look: &TargetLook) -> impl Iterator<Item = u64> {
    let found = look.bad_frees.iter().flatten();
    found.flat_map(|(key, bad)| [key.site, key.freed_at, bad.allocated_at])
}

fn module(address: &CodeAddress) -> Option<String> {
    symbol::unnamed_frame(address).module
}

/// The ages of blocks that were recorded from `begin_ns` on (CLOCK_MONOTONIC).
pub(crate) fn site_ages(mut blocks: SiteBlocks, begin_ns: u64, now_ns: u64) -> SiteAges {
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
        births: Births::of(births.iter().copied(), begin_ns, now_ns),
    }
}
