//! From the maps to what the report is made of.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use leakd_common::block::Block;
use leakd_common::kernel::{KernelKind, KernelSite};
use leakd_common::target::{Counter, TargetCounters};

use super::stack::{SiteStack, Underneath};
use super::{KernelError, KernelTrace, caches, hooks};
use crate::bpf::sys;
use crate::engine::ledger::map_memory;
use crate::engine::plain::read;
use crate::engine::snapshot::{SiteBlocks, for_each, now_ns};
use crate::report::input::{SiteAges, SiteSnapshot, TargetSnapshot, sum_counters};
use crate::report::kernel as report;
use crate::report::model::{Ended, SeenFrom, Unprobed, Windows};
use crate::trace::site_ages;

/// Tasks of each site that are listed.
const TASKS: usize = 10;
/// Pages that can be taken back when memory is short.
const GFP_RECLAIMABLE: u32 = 1 << 4;

/// The outstanding blocks of one site.
#[derive(Debug, Default)]
struct Held {
    blocks: SiteBlocks,
    least: u64,
    most: u64,
    /// Blocks by process.
    tasks: HashMap<u32, u64>,
}

impl KernelTrace {
    /// The counters of all CPUs.
    pub fn counters(&self) -> Result<TargetCounters, KernelError> {
        let size = size_of::<TargetCounters>();
        let mut values = vec![0u8; size * sys::possible_cpus()?];
        sys::map_lookup(self.object.map("COUNTERS")?, &0u32.to_ne_bytes(), &mut values)?;
        let cpus: Vec<TargetCounters> = values.chunks_exact(size).map(read).collect();
        Ok(sum_counters(&cpus))
    }
}

/// Reads everything.
pub(super) fn collect(
    trace: &mut KernelTrace,
    min_age: Duration,
) -> Result<TargetSnapshot, KernelError> {
    let now = now_ns()?;
    let newest = now.saturating_sub(min_age.as_nanos() as u64);
    let held = held(trace, newest)?;
    let mut totals: Vec<(u64, KernelSite)> = Vec::new();
    for_each(trace.object.map("SITES")?, |key, value| totals.push((read(key), read(value))))?;
    let counters = trace.counters()?;
    let missed = trace.object.missed()?;
    let mut details = report::KernelTrace {
        cache: trace.settings.cache.clone(),
        unseen_frees: trace.unseen_frees.clone(),
        missed_frees: missed.frees,
        missed_allocations: missed.allocations,
        movable_pages: counters.get(Counter::Movable),
        stacks_checked: counters
            .get(Counter::StacksConfirmed)
            .saturating_add(counters.get(Counter::StacksMistaken)),
        stacks_mistaken: counters.get(Counter::StacksMistaken),
        ..report::KernelTrace::default()
    };
    let mut unprobed = Vec::new();
    let mut traced = Vec::new();
    for way in &trace.ways {
        match &way.hooks {
            Ok(_) => {
                traced.push(way.kind);
                details.traced.push(hooks::name(way.kind).to_owned());
            }
            Err(reason) => unprobed.push(Unprobed {
                symbol: hooks::name(way.kind).to_owned(),
                module: "the kernel".to_owned(),
                reason: reason.clone(),
            }),
        }
    }
    let mut names = Names { comms: HashMap::new(), merged: caches::merged() };
    let mut sites = Vec::new();
    for (key, totals) in totals {
        let stack = trace.stacks.get(&key);
        if is_underneath(stack, &traced) {
            details.underneath_bytes += totals.totals.outstanding_bytes();
            continue;
        }
        let ages = held.get(&key).map(|held| {
            let began = now.saturating_sub(trace.elapsed().as_nanos() as u64);
            site_ages(held.blocks.clone(), began, now)
        });
        let ages = ages.unwrap_or_default();
        sites.push(site(key, &totals, held.get(&key), stack, ages, &mut names));
    }
    let table_bytes =
        map_memory(trace.object.map("BLOCKS")?)? + map_memory(trace.object.map("SITES")?)?;
    let duration_ns = trace.elapsed().as_nanos() as u64;
    Ok(TargetSnapshot {
        pid: 0,
        comm: "kernel".to_owned(),
        exe: crate::preflight::release(),
        ended: Ended::Running,
        duration_ns,
        filling_ns: trace.windows.filling_for().as_nanos() as u64,
        min_age_ns: min_age.as_nanos() as u64,
        seen_from: SeenFrom::Attach,
        counters,
        execs: 0,
        sample_bytes: 0,
        table_bytes,
        windows: Windows {
            count: trace.windows.count(),
            open_ns: trace.windows.open_for().as_nanos() as u64,
        },
        probes: Vec::new(),
        without_table: Default::default(),
        unprobed,
        replaced_per_second: None,
        limit: None,
        memory_growth: None,
        sites,
        memory: None,
        bad_frees: None,
        kernel: Some(details),
    })
}

/// Whether these pages are counted as what another allocator made of them.
fn is_underneath(stack: Option<&SiteStack>, traced: &[KernelKind]) -> bool {
    let has = |kind| traced.contains(&kind);
    match stack.and_then(|stack| stack.underneath) {
        Some(Underneath::Slab) => has(KernelKind::Kmalloc) && has(KernelKind::Cache),
        Some(Underneath::Vmalloc) => has(KernelKind::Vmalloc),
        Some(Underneath::PerCpu) => has(KernelKind::PerCpu),
        None => false,
    }
}

/// The outstanding blocks by site.
fn held(trace: &KernelTrace, newest: u64) -> Result<HashMap<u64, Held>, KernelError> {
    let mut sites: HashMap<u64, Held> = HashMap::new();
    for_each(trace.object.map("BLOCKS")?, |_, value| {
        let block: Block = read(value);
        let site =
            sites.entry(block.site).or_insert_with(|| Held { least: u64::MAX, ..Held::default() });
        site.blocks.births.push(block.birth_ns);
        if block.birth_ns <= newest {
            site.blocks.aged_blocks += 1;
            site.blocks.aged_bytes += block.size();
        }
        site.least = site.least.min(block.size());
        site.most = site.most.max(block.size());
        *site.tasks.entry(block.tid).or_default() += 1;
    })?;
    Ok(sites)
}

/// Names of processes and of caches.
#[derive(Debug)]
struct Names {
    comms: HashMap<u32, Option<String>>,
    merged: HashMap<String, Vec<String>>,
}

impl Names {
    fn of_process(&mut self, pid: u32) -> Option<String> {
        let read = || std::fs::read_to_string(format!("/proc/{pid}/comm")).ok();
        let name = self.comms.entry(pid).or_insert_with(read);
        name.as_deref().map(|name| name.trim_end_matches('\n').to_owned())
    }

    fn merged_with(&self, cache: &str) -> Vec<String> {
        let all = self.merged.get(cache).into_iter().flatten();
        all.filter(|name| *name != cache).cloned().collect()
    }
}

fn site(
    key: u64,
    totals: &KernelSite,
    held: Option<&Held>,
    stack: Option<&SiteStack>,
    ages: SiteAges,
    names: &mut Names,
) -> SiteSnapshot {
    let frames = stack.map(|stack| stack.frames.clone()).unwrap_or_default();
    // Blocks of one place in several caches stay apart.
    let mut files = DefaultHasher::new();
    stack.map(|stack| (stack.kind, &stack.cache)).hash(&mut files);
    SiteSnapshot {
        key,
        site: totals.totals,
        ages: Some(ages),
        growth: None,
        addresses: frames.iter().map(|frame| frame.address).collect(),
        files: files.finish(),
        outermost: frames.last().and_then(|frame| frame.module.clone()),
        frames: frames.into_iter().map(|frame| vec![frame]).collect(),
        end: stack.map(|stack| stack.end).filter(|_| totals.totals.announced != 0),
        frame_pointer_steps: 0,
        kernel: Some(details(totals, held, stack, names)),
    }
}

fn details(
    totals: &KernelSite,
    held: Option<&Held>,
    stack: Option<&SiteStack>,
    names: &mut Names,
) -> report::KernelSite {
    let kind = KernelKind::from_number(totals.kind).unwrap_or(KernelKind::Kmalloc);
    let cache = stack.map(|stack| stack.cache.clone()).filter(|name| !name.is_empty());
    let by_flags = totals.gfp & GFP_RECLAIMABLE != 0;
    let reclaimable = match kind {
        KernelKind::Cache => cache.as_deref().and_then(caches::is_reclaimable),
        KernelKind::Kmalloc | KernelKind::Pages => Some(by_flags),
        KernelKind::PerCpu | KernelKind::Vmalloc => Some(false),
    };
    let interrupt = stack.is_some_and(|stack| stack.interrupt);
    let last_pid = (totals.task >> 32) as u32;
    let mut tasks: Vec<report::Task> = Vec::new();
    if let Some(held) = held.filter(|_| !interrupt) {
        let mut most: Vec<(u32, u64)> =
            held.tasks.iter().map(|(&pid, &blocks)| (pid, blocks)).collect();
        most.sort_unstable_by_key(|&(pid, blocks)| (std::cmp::Reverse(blocks), pid));
        for (pid, blocks) in most.into_iter().take(TASKS) {
            // The program has seen the name of who came last.
            let comm =
                if pid == last_pid { Some(name(&totals.comm)) } else { names.of_process(pid) };
            tasks.push(report::Task { pid, comm, blocks });
        }
    }
    report::KernelSite {
        kind: hooks::name(kind).to_owned(),
        merged_with: cache.as_ref().map_or_else(Vec::new, |cache| names.merged_with(cache)),
        cache,
        least_bytes: held.map_or(0, |held| held.least),
        most_bytes: held.map_or(0, |held| held.most),
        reclaimable,
        interrupt,
        reused: totals.reused,
        tasks,
    }
}

fn name(comm: &[u8; 16]) -> String {
    let end = comm.iter().position(|&byte| byte == 0).unwrap_or(comm.len());
    String::from_utf8_lossy(&comm[..end]).into_owned()
}
