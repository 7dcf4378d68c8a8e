//! How long it takes until the unwind tables of all that a running postgres
//! has mapped are in the kernel.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use leakd::bpf::object::BpfObject;
use leakd::elf::FileIdentity;
use leakd::process::{MappingKind, mappings, open_object};
use leakd::unwind::cache::{DiskCache, MAX_BYTES};
use leakd::unwind::kernel_maps::MapDescriptors;
use leakd::unwind::source::NoTable;
use leakd::unwind::store::{StoreCounts, StoreLimits};
use leakd::unwind::{
    AddressSpaces, ConvertError, ExecutableMapping, KernelMaps, MappingSource, TableStore,
};
use tempfile::TempDir;

use super::figure::{Figure, Goal};
use crate::workload::postgres::{Installed, Postgres};

/// Until the last table and mapping are published, in ms.
const COLD: Goal = Goal::AtMost(300.0);
/// The same, with all tables in the cache on disk.
const WARM: Goal = Goal::AtMost(20.0);

/// For all tables.
const AT_MOST: Duration = Duration::from_secs(60);

/// One time, from nothing to all tables.
struct Loaded {
    /// Finding the mappings and opening their files, in ms.
    open: f64,
    /// All of it, in ms.
    whole: f64,
    /// The same, and until they are kept on disk, in ms.
    saved: f64,
    counts: StoreCounts,
}

/// Loads all tables into maps that hold none.
fn load(pid: u32, cache: Option<DiskCache>) -> Result<Loaded> {
    let object = BpfObject::load(None, 1)?;
    let maps = KernelMaps::new(MapDescriptors {
        tables: object.owned_map("TABLES")?,
        geometry: object.owned_map("GEOMETRY")?,
        rules: object.owned_map("RULES")?,
        mappings: object.owned_map("MAPPINGS")?,
        cache: object.owned_map("RULE_CACHE")?,
    })?;
    let mut spaces = AddressSpaces::new(TableStore::new(maps, StoreLimits::default(), cache)?);

    let start = Instant::now();
    let milliseconds = || start.elapsed().as_secs_f64() * 1e3;
    let mappings = code(pid)?;
    let open = milliseconds();
    let report = spaces.sync(pid, &mappings, AT_MOST)?;
    let whole = milliseconds();
    // What comes from the disk is not kept there again.
    spaces.store_mut().wait_until_idle();
    let saved = milliseconds();
    // A library of data (ICU's) has no functions, and so no entries.
    let data = NoTable::Convert(ConvertError::NoEntries);
    let failed = report.without_table.iter().find(|one| one.why != data);
    ensure!(failed.is_none(), "no table: {failed:?}");
    ensure!(report.inserted == mappings.len(), "mappings left out: {report:?}");
    Ok(Loaded { open, whole, saved, counts: spaces.store().counts() })
}

/// The mappings with code, and their files.
fn code(pid: u32) -> Result<Vec<ExecutableMapping>> {
    let mut code = Vec::new();
    for mapping in mappings(pid)? {
        let source = match &mapping.kind {
            MappingKind::File { .. } => {
                let file = open_object(pid, &mapping)?;
                let identity = FileIdentity::of(&file)?;
                MappingSource::File { identity, file: Arc::new(file) }
            }
            MappingKind::Vdso => MappingSource::Vdso,
            MappingKind::Anonymous => MappingSource::Anonymous,
            _ => continue,
        };
        let (begin, end, file_offset) = (mapping.begin, mapping.end, mapping.offset);
        code.push(ExecutableMapping { begin, end, file_offset, source });
    }
    Ok(code)
}

/// Measures in `rounds` rounds.
pub fn run(rounds: u32) -> Result<Vec<Figure>> {
    let Some(installed) = Installed::find() else {
        let missing = |name, goal| Figure::missing(name, goal, "no postgres");
        return Ok(vec![missing("from cold", COLD), missing("from the cache", WARM)]);
    };
    let postgres = Postgres::start(&installed)?;
    let pid = postgres.pid();
    let (mut cold, mut saved, mut warm, mut open) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut tables, mut bytes) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        eprint!("\rtables: round {round} of {rounds} ");
        let directory = TempDir::with_prefix("leakd-bench-")?;
        let path = directory.path().join("cache");
        let cache = || DiskCache::open(&path, MAX_BYTES).map(Some);
        cold.push(load(pid, None)?.whole);
        saved.push(load(pid, cache()?)?.saved);
        let loaded = load(pid, cache()?)?;
        // The vdso is in memory already, and is not kept on disk.
        ensure!(loaded.counts.converted <= 1, "not from the cache: {:?}", loaded.counts);
        warm.push(loaded.whole);
        open.push(loaded.open);
        tables.push(loaded.counts.tables as f64);
        bytes.push(loaded.counts.bytes as f64 / f64::from(1 << 20));
    }
    eprintln!();
    Ok(vec![
        Figure::new("from cold", "ms", COLD, &cold),
        Figure::new("from the cache", "ms", WARM, &warm),
        Figure::new("of that, opening the files", "ms", Goal::None, &open),
        Figure::new("from cold, and kept on disk", "ms", Goal::None, &saved),
        Figure::new("tables", "", Goal::None, &tables),
        Figure::new("their size", "MiB", Goal::None, &bytes),
    ])
}
