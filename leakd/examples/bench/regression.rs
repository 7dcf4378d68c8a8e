//! Whether leakd has grown since bench/baseline.json was recorded. What is counted
//! is compared strictly, what is timed is only shown.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use aya::programs::loaded_programs;
use leakd::engine::target::SeenFrom;
use leakd::engine::{Engine, Settings};
use serde::{Deserialize, Serialize};

use crate::model::{Compared, Document, Regression};
use crate::tracer::{FLOOR, LEAKD};
use crate::workload::target::Program;

/// By how much counts may grow.
const INSTRUCTIONS: f64 = 1.10;
const VERIFIED: f64 = 1.20;
const MEMORY: f64 = 1.10;

/// What is on record.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Baseline {
    /// Counts, by release family of the kernel, which has its own part in them.
    counts: BTreeMap<String, Counts>,
    /// Ratios of a quick run.
    ratios: BTreeMap<String, f64>,
}

/// What is the same in every run on a kernel.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Counts {
    /// Instructions of each program as the kernel has translated them.
    instructions: BTreeMap<String, f64>,
    /// Instructions that the verifier looked at.
    verified: BTreeMap<String, f64>,
    /// Memory of the maps with one small process under trace, in KiB, by the number
    /// of CPUs: some maps have a part for each.
    map_kib: BTreeMap<usize, f64>,
}

/// In the source, which is where the benchmark is built.
fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/baseline.json")
}

/// "6.18" of "6.18.44-some".
fn family() -> String {
    let release = leakd::preflight::release();
    let numbers: Vec<&str> = release.split(['.', '-']).take(2).collect();
    numbers.join(".")
}

/// Compares with what is on record, which is recorded anew first if `record`.
pub fn run(document: &Document, record: bool) -> Result<Regression> {
    let (counts, ratios) = (count()?, ratios(document));
    let mut baseline = read()?;
    if record {
        let own = baseline.counts.entry(family()).or_default();
        own.instructions = counts.instructions.clone();
        own.verified = counts.verified.clone();
        own.map_kib.extend(counts.map_kib.clone());
        baseline.ratios.extend(ratios.clone());
        let place = place();
        let text = serde_json::to_string_pretty(&baseline)? + "\n";
        fs::write(&place, text).with_context(|| format!("cannot write {}", place.display()))?;
    }
    let recorded = baseline.counts.get(&family());
    let mut lines = Vec::new();
    let mut counted = |name: String, recorded: Option<f64>, now: f64, factor: f64| {
        let failed = recorded.is_some_and(|recorded| now > recorded * factor);
        lines.push(Compared { name, recorded, now, noisy: false, failed });
    };
    for (name, now) in &counts.instructions {
        let before = recorded.and_then(|counts| counts.instructions.get(name)).copied();
        counted(format!("{name}: instructions"), before, *now, INSTRUCTIONS);
    }
    for (name, now) in &counts.verified {
        let before = recorded.and_then(|counts| counts.verified.get(name)).copied();
        counted(format!("{name}: verified"), before, *now, VERIFIED);
    }
    for (cpus, now) in &counts.map_kib {
        let before = recorded.and_then(|counts| counts.map_kib.get(cpus)).copied();
        counted(format!("memory of all maps, KiB, {cpus} CPUs"), before, *now, MEMORY);
    }
    lines.extend(ratios.into_iter().map(|(name, now)| Compared {
        recorded: baseline.ratios.get(&name).copied(),
        name,
        now,
        noisy: true,
        failed: false,
    }));
    let known = if recorded.is_some() { "on record" } else { "not on record: --record" };
    Ok(Regression { record: format!("Linux {}, {known}", family()), lines })
}

fn read() -> Result<Baseline> {
    let place = place();
    match fs::read(&place) {
        Ok(text) => serde_json::from_slice(&text)
            .with_context(|| format!("{} is no baseline", place.display())),
        Err(_) => Ok(Baseline::default()),
    }
}

/// What empty programs reach over leakd, by workload: the least noisy of ratios.
fn ratios(document: &Document) -> BTreeMap<String, f64> {
    let ratio = |one: &crate::model::Overhead| {
        let (floor, leakd) = (one.figures(FLOOR)?, one.figures(LEAKD)?);
        let name = format!("{}: floor/leakd", one.title());
        Some((name, floor.throughput.median / leakd.throughput.median))
    };
    document.overhead.iter().filter_map(ratio).collect()
}

/// Counts what an engine has loaded that traces one small process.
fn count() -> Result<Counts> {
    let program = Program::compile()?;
    let target = program.start()?;
    let mut engine = Engine::start(Settings::default())?;
    let slot = engine.attach(target.pid(), SeenFrom::Attach)?;
    let (programs, map_bytes) = own()?;
    let mut counts = Counts::default();
    counts.map_kib.insert(leakd::bpf::sys::possible_cpus()?, map_bytes / 1024.0);
    for program in loaded_programs() {
        // One that has gone meanwhile is none of ours.
        let Ok(program) = program else { continue };
        if !programs.contains(&program.id()) {
            continue;
        }
        let name = program.name_as_str().unwrap_or_default().to_owned();
        let most = |all: &mut BTreeMap<String, f64>, count: f64| {
            let entry = all.entry(name.clone()).or_default();
            *entry = entry.max(count);
        };
        // Eight bytes each.
        if let Some(bytes) = program.size_translated() {
            most(&mut counts.instructions, f64::from(bytes / 8));
        }
        if let Some(verified) = program.verified_instruction_count() {
            most(&mut counts.verified, f64::from(verified));
        }
    }
    engine.detach(slot);
    Ok(counts)
}

/// The ids of the programs that this process has, and the memory of its maps.
fn own() -> Result<(Vec<u32>, f64)> {
    let (mut programs, mut bytes) = (Vec::new(), BTreeMap::new());
    for entry in fs::read_dir("/proc/self/fdinfo")?.flatten() {
        let Ok(text) = fs::read_to_string(entry.path()) else { continue };
        let value = |key: &str| -> Option<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            line.trim().parse().ok()
        };
        if value("prog_jited").is_some() {
            programs.extend(value("prog_id").and_then(|id| u32::try_from(id).ok()));
        } else if let (Some(id), Some(size)) = (value("map_id"), value("memlock")) {
            bytes.insert(id, size as f64);
        }
    }
    Ok((programs, bytes.values().sum()))
}
