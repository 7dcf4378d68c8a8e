//! All tables that are loaded: made once for each file, shared by all targets.
//!
//! Order of writing, so that a walker never meets half of something: a table's
//! rules, then its cells, its geometry, and last the mappings that point at it.
//! Taking away goes the other way round.
//!
//! A table's number is not given out again while numbers last that never were;
//! the walker's cache holds rules by (table number, address), and is flushed
//! before a number comes back.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use leakd_common::unwind::{Cell, Mapping, MappingKey, Rule, TABLES, TableGeometry};
use thiserror::Error;

use crate::elf::FileIdentity;
use crate::unwind::cache::DiskCache;
use crate::unwind::image::{self, Segment};
use crate::unwind::rule_numbers::RuleNumbers;
use crate::unwind::table::TableStats;
use crate::unwind::{ConvertError, Limits, Table, convert, vdso};

/// A prefix of the mapping trie, laid out as the kernel reads it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappingPrefix {
    /// Bits of `key` that count: 64 to 128.
    pub length: u32,
    /// Process and first address.
    pub key: MappingKey,
}

const _: () = assert!(size_of::<MappingPrefix>() == 20);

/// The kernel's side: what the store and the address spaces need of it.
pub trait UnwindMaps {
    /// A table's cells, in the kernel but not to be seen by walkers yet.
    type Table;

    /// Copies cells into the kernel.
    fn create_table(&mut self, cells: &[Cell]) -> io::Result<Self::Table>;
    /// Puts tables under their numbers, all in one go.
    fn publish_tables(&mut self, tables: Vec<(u32, TableGeometry, Self::Table)>) -> io::Result<()>;
    /// Takes the tables under these numbers away. Returns when no walker that
    /// runs can have them in hand any more.
    fn retire_tables(&mut self, numbers: &[u32]) -> io::Result<()>;
    /// Writes rules `first`, `first + 1`, ...
    fn set_rules(&mut self, first: u32, rules: &[Rule]) -> io::Result<()>;
    /// Inserts prefixes, or overwrites them.
    fn insert_mappings(&mut self, mappings: &[(MappingPrefix, Mapping)]) -> io::Result<()>;
    /// Removes prefixes; one that is not there is none to complain about.
    fn remove_mappings(&mut self, prefixes: &[MappingPrefix]) -> io::Result<()>;
    /// Empties the walkers' cache of (table number, address) to rule.
    fn flush_cache(&mut self) -> io::Result<()>;
}

/// Limits for all tables together.
#[derive(Clone, Copy, Debug)]
pub struct StoreLimits {
    /// Bytes of table cells in kernel memory.
    pub bytes: u64,
    /// Threads for conversion.
    pub threads: usize,
    /// For each file.
    pub file: Limits,
    /// Wall-clock time for all files of one load; what is left then goes without
    /// until the next one.
    pub load_time: Duration,
    /// When a file that took too long, or could not be read, is tried again.
    pub retry_after: Duration,
}

impl Default for StoreLimits {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
        Self {
            bytes: 64 << 20,
            threads,
            file: Limits::default(),
            load_time: Duration::from_secs(10),
            retry_after: Duration::from_secs(60),
        }
    }
}

/// What a table is made from, as far as telling tables apart goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TableKey {
    /// A file.
    File(FileIdentity),
    /// The kernel's vdso.
    Vdso,
}

/// What a table is made from.
#[derive(Clone, Debug)]
pub enum TableSource {
    /// A file, open for reading.
    File(FileIdentity, Arc<File>),
    /// The kernel's vdso.
    Vdso,
}

impl TableSource {
    /// The key of this source.
    pub fn key(&self) -> TableKey {
        match self {
            Self::File(identity, _) => TableKey::File(*identity),
            Self::Vdso => TableKey::Vdso,
        }
    }

    /// For doing large files first.
    fn size(&self) -> u64 {
        match self {
            Self::File(identity, _) => identity.size,
            Self::Vdso => 0,
        }
    }
}

/// Why there is no table.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NoTable {
    /// The file gave none.
    #[error(transparent)]
    Convert(#[from] ConvertError),
    /// The tables in use, or those of this process, leave no room.
    #[error("unwind tables already take the {limit} bytes that they may")]
    NoMemory {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The process's other files took all the time that there was.
    #[error("no time left after the process's other files")]
    NoTime,
    /// As many tables are in use as there can be.
    #[error("all {TABLES} unwind tables are in use")]
    NoNumber,
    /// The kernel refused.
    #[error("cannot load an unwind table into the kernel: {0}")]
    Kernel(io::ErrorKind),
}

/// A loaded table, held for one mapping; give it back with
/// [`TableStore::release`].
#[derive(Debug, PartialEq, Eq)]
pub struct TableUse {
    /// Its number in the kernel's maps.
    pub number: u32,
}

/// Counts, for reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreCounts {
    /// Tables loaded now.
    pub tables: usize,
    /// Bytes of their cells.
    pub bytes: u64,
    /// Distinct rules.
    pub rules: usize,
    /// Rules that found no room and became unsupported.
    pub refused_rules: u64,
    /// Tables made from files since the start.
    pub converted: u64,
    /// Tables that came from the disk cache.
    pub from_cache: u64,
    /// Tables that had to go.
    pub evicted: u64,
}

struct Loaded {
    key: TableKey,
    segments: Vec<Segment>,
    stats: TableStats,
    bytes: u64,
    /// Mappings that point at it.
    uses: u32,
    /// Value of the store's clock when it was last asked for.
    last_use: u64,
}

enum Known {
    Table(u32),
    Failed { error: ConvertError, since: Instant },
}

/// Files remembered for giving no table.
const MAX_FAILED: usize = 4096;

/// All tables that are loaded.
pub struct TableStore<M> {
    pub(crate) maps: M,
    limits: StoreLimits,
    cache: Option<DiskCache>,
    known: HashMap<TableKey, Known>,
    loaded: HashMap<u32, Loaded>,
    rules: RuleNumbers,
    clock: u64,
    /// Numbers from here on were never given out.
    next_number: u32,
    /// Retired, but the walkers' cache may still know them.
    retired: Vec<u32>,
    /// Retired, and the cache flushed since.
    reusable: Vec<u32>,
    /// Converted, and not in the disk cache yet.
    unsaved: Vec<(FileIdentity, Table)>,
    failed: usize,
    counts: StoreCounts,
}

impl<M> std::fmt::Debug for TableStore<M> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TableStore").field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl<M: UnwindMaps> TableStore<M> {
    /// An empty store. Writes the rules that every table may refer to.
    pub fn new(mut maps: M, limits: StoreLimits, cache: Option<DiskCache>) -> io::Result<Self> {
        let rules = RuleNumbers::new();
        maps.set_rules(0, &RuleNumbers::FIRST)?;
        Ok(Self {
            maps,
            limits,
            cache,
            known: HashMap::new(),
            loaded: HashMap::new(),
            rules,
            clock: 0,
            next_number: 0,
            retired: Vec::new(),
            reusable: Vec::new(),
            unsaved: Vec::new(),
            failed: 0,
            counts: StoreCounts::default(),
        })
    }

    /// Counts, for reports.
    pub fn counts(&self) -> StoreCounts {
        let bytes = self.loaded.values().map(|loaded| loaded.bytes).sum();
        let (tables, rules) = (self.loaded.len(), self.rules.count());
        StoreCounts { tables, bytes, rules, refused_rules: self.rules.refused(), ..self.counts }
    }

    /// Bytes of kernel memory of a table's cells.
    pub fn table_bytes(&self, table: &TableUse) -> u64 {
        self.loaded.get(&table.number).map_or(0, |loaded| loaded.bytes)
    }

    /// Bytes of cells that one process may hold: nobody takes all.
    pub fn process_quota(&self) -> u64 {
        self.limits.bytes / 2
    }

    /// What was met while a table was made.
    pub fn stats(&self, table: &TableUse) -> Option<TableStats> {
        self.loaded.get(&table.number).map(|loaded| loaded.stats)
    }

    /// Address minus virtual address for a mapping of the table's file; see
    /// [`image::bias`].
    pub fn bias(&self, table: &TableUse, begin: u64, file_offset: u64) -> Option<u64> {
        image::bias(&self.loaded.get(&table.number)?.segments, begin, file_offset)
    }

    /// Why a file has no table; `None` if it has one or was never asked for.
    pub fn failure(&self, key: &TableKey) -> Option<&ConvertError> {
        match self.known.get(key)? {
            Known::Failed { error, .. } => Some(error),
            Known::Table(_) => None,
        }
    }

    /// Loads the tables of all sources, in parallel where they have to be made,
    /// and holds each for one mapping. Takes as long as the conversions take:
    /// not for a thread of an async runtime.
    pub fn load(&mut self, sources: &[TableSource]) -> Vec<Result<TableUse, NoTable>> {
        self.clock += 1;
        let keys: Vec<TableKey> = sources.iter().map(TableSource::key).collect();
        // Hold first what is there, so that it does not have to go for what is
        // not.
        let mut results: Vec<_> = keys.iter().map(|key| self.hold(key)).collect();
        let mut seen = HashSet::new();
        let missing = |(index, key): (usize, &TableKey)| {
            (results[index].is_none() && seen.insert(key.clone())).then(|| &sources[index])
        };
        let mut missing: Vec<&TableSource> = keys.iter().enumerate().filter_map(missing).collect();
        missing.sort_by_key(|source| std::cmp::Reverse(source.size()));
        let mut refused = HashMap::new();
        let begun = Instant::now();
        while !missing.is_empty() && begun.elapsed() < self.limits.load_time {
            let made = self.make(&missing, begun);
            missing.drain(..made.len());
            refused.extend(self.install(made));
        }
        refused.extend(missing.iter().map(|source| (source.key(), NoTable::NoTime)));
        for (result, key) in results.iter_mut().zip(&keys) {
            if result.is_none() {
                *result = self.hold(key);
            }
        }
        let outcome = |(result, key): (Option<_>, _)| {
            let why = NoTable::Kernel(io::ErrorKind::Other);
            result.unwrap_or_else(|| Err(refused.entry(key).or_insert(why).clone()))
        };
        results.into_iter().zip(keys).map(outcome).collect()
    }

    /// Gives back what [`TableStore::load`] gave. The mapping that used it must
    /// be gone from the kernel.
    pub fn release(&mut self, table: TableUse) {
        if let Some(loaded) = self.loaded.get_mut(&table.number) {
            loaded.uses = loaded.uses.saturating_sub(1);
            loaded.last_use = self.clock;
        }
    }

    /// Writes new tables to the disk cache; apart from loading, so that the
    /// mappings need not wait for it.
    pub fn save(&mut self) {
        let unsaved = std::mem::take(&mut self.unsaved);
        if let Some(cache) = &mut self.cache {
            for (identity, table) in unsaved {
                cache.store(&identity, &table);
            }
        }
    }

    /// Whether loading this key would only give the error that it gave before.
    pub fn is_settled_failure(&self, key: &TableKey) -> bool {
        matches!(self.known.get(key), Some(Known::Failed { error, since })
            if !self.worth_another_try(error, *since))
    }

    fn worth_another_try(&self, error: &ConvertError, since: Instant) -> bool {
        use ConvertError::{Changed, Read, TookTooLong};
        let passing = matches!(error, TookTooLong(_) | Changed | Read(_));
        passing && since.elapsed() > self.limits.retry_after
    }

    /// What is known about a key; `None`: it has to be made.
    fn hold(&mut self, key: &TableKey) -> Option<Result<TableUse, NoTable>> {
        match self.known.get(key)? {
            Known::Table(number) => {
                let loaded = self.loaded.get_mut(number)?;
                loaded.uses += 1;
                loaded.last_use = self.clock;
                Some(Ok(TableUse { number: *number }))
            }
            Known::Failed { error, since } => {
                let again = self.worth_another_try(error, *since);
                (!again).then(|| Err(NoTable::Convert(error.clone())))
            }
        }
    }

    /// Reads tables from the disk cache or makes them, on several threads: the
    /// first ones of `sources`, as long as memory and time last.
    fn make<'a>(&self, sources: &[&'a TableSource], begun: Instant) -> Vec<Made<'a>> {
        let bytes = AtomicU64::new(0);
        let next = AtomicUsize::new(0);
        let made = Mutex::new(Vec::with_capacity(sources.len()));
        let (cache, limits) = (self.cache.as_ref(), self.limits);
        let work = || {
            while bytes.load(Ordering::Relaxed) <= limits.bytes
                && begun.elapsed() < limits.load_time
                && let Some(&source) = sources.get(next.fetch_add(1, Ordering::Relaxed))
            {
                let one = make_one(source, cache, limits);
                let size = one.table.as_ref().map_or(0, Table::cell_bytes);
                bytes.fetch_add(size, Ordering::Relaxed);
                made.lock().unwrap_or_else(|poison| poison.into_inner()).push(one);
            }
        };
        let threads = self.limits.threads.min(sources.len());
        if threads <= 1 {
            work();
        } else {
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(work);
                }
            });
        }
        made.into_inner().unwrap_or_else(|poison| poison.into_inner())
    }

    /// Brings made tables into the kernel; gives what could not be.
    fn install(&mut self, made: Vec<Made<'_>>) -> HashMap<TableKey, NoTable> {
        let mut refused = HashMap::new();
        let mut publish = Vec::new();
        let mut installed = Vec::new();
        for Made { source, table, from_cache } in made {
            let key = source.key();
            let table = match table {
                Ok(table) => table,
                Err(error) => {
                    self.remember_failure(key, error);
                    continue;
                }
            };
            match self.bring_in(&key, &table) {
                Ok((number, geometry, cells)) => {
                    publish.push((number, geometry, cells));
                    installed.push(number);
                    if from_cache {
                        self.counts.from_cache += 1;
                    } else {
                        self.counts.converted += 1;
                        if let (TableSource::File(identity, _), true) =
                            (source, self.cache.is_some())
                        {
                            self.unsaved.push((*identity, table));
                        }
                    }
                }
                Err(why) => {
                    refused.insert(key, why);
                }
            }
        }
        if let Err(error) = self.maps.publish_tables(publish) {
            for number in installed {
                if let Some(loaded) = self.loaded.remove(&number) {
                    self.known.remove(&loaded.key);
                    refused.insert(loaded.key, NoTable::Kernel(error.kind()));
                    self.retired.push(number);
                }
            }
        }
        refused
    }

    /// Makes room, numbers the rules and creates the cells of one table.
    fn bring_in(
        &mut self,
        key: &TableKey,
        table: &Table,
    ) -> Result<(u32, TableGeometry, M::Table), NoTable> {
        let kernel = |error: io::Error| NoTable::Kernel(error.kind());
        let bytes = table.cell_bytes();
        self.make_room(bytes)?;
        let first = self.rules.count();
        let numbers = self.rules.number(&table.rules);
        let new = self.rules.since(first);
        if !new.is_empty()
            && let Err(error) = self.maps.set_rules(first as u32, new)
        {
            self.rules.forget_since(first);
            return Err(kernel(error));
        }
        let cells = table.cells(&numbers, RuleNumbers::UNSUPPORTED);
        let handle = self.maps.create_table(&cells.cells).map_err(kernel)?;
        let number = self.take_number()?;
        self.known.insert(key.clone(), Known::Table(number));
        let loaded = Loaded {
            key: key.clone(),
            segments: table.segments.clone(),
            stats: table.stats,
            bytes,
            uses: 0,
            last_use: self.clock,
        };
        self.loaded.insert(number, loaded);
        Ok((number, cells.geometry, handle))
    }

    fn remember_failure(&mut self, key: TableKey, error: ConvertError) {
        if self.failed >= MAX_FAILED {
            self.known.retain(|_, known| matches!(known, Known::Table(_)));
            self.failed = 0;
        }
        let known = Known::Failed { error, since: Instant::now() };
        if self.known.insert(key, known).is_none() {
            self.failed += 1;
        }
    }

    /// Evicts until `bytes` more fit.
    fn make_room(&mut self, bytes: u64) -> Result<(), NoTable> {
        let limit = self.limits.bytes;
        let no_memory = NoTable::NoMemory { limit };
        let allowed = limit.checked_sub(bytes).ok_or(no_memory.clone())?;
        let mut used: u64 = self.loaded.values().map(|loaded| loaded.bytes).sum();
        let mut victims = Vec::new();
        if used > allowed {
            // Some more at once: each time waits for the walkers, about 10 ms.
            let enough = allowed.saturating_sub(limit / 8);
            for (number, bytes) in self.unused() {
                if used <= enough {
                    break;
                }
                used -= bytes;
                victims.push(number);
            }
        }
        // Nobody is helped by throwing out some and still not fitting.
        if used > allowed { Err(no_memory) } else { self.evict(&victims) }
    }

    /// Number and size of tables that no mapping uses, least recently used
    /// first. Not those of the load that is going on: they are not in use yet.
    fn unused(&self) -> Vec<(u32, u64)> {
        let idle = |loaded: &Loaded| loaded.uses == 0 && loaded.last_use < self.clock;
        let idle = self.loaded.iter().filter(|(_, loaded)| idle(loaded));
        let mut idle: Vec<_> =
            idle.map(|(&number, loaded)| (loaded.last_use, number, loaded.bytes)).collect();
        idle.sort_unstable();
        idle.into_iter().map(|(_, number, bytes)| (number, bytes)).collect()
    }

    fn evict(&mut self, numbers: &[u32]) -> Result<(), NoTable> {
        if numbers.is_empty() {
            return Ok(());
        }
        self.maps.retire_tables(numbers).map_err(|error| NoTable::Kernel(error.kind()))?;
        for number in numbers {
            if let Some(loaded) = self.loaded.remove(number) {
                self.known.remove(&loaded.key);
            }
            self.counts.evicted += 1;
            self.retired.push(*number);
        }
        Ok(())
    }

    /// A number that neither a mapping nor the walkers' cache knows.
    fn take_number(&mut self) -> Result<u32, NoTable> {
        if (self.next_number as usize) < TABLES {
            self.next_number += 1;
            return Ok(self.next_number - 1);
        }
        if self.reusable.is_empty() {
            if self.retired.is_empty() {
                // A part of the unused ones at once: each flush costs the
                // walkers their cache.
                let unused = self.unused();
                let count = unused.len().div_ceil(4);
                let victims: Vec<u32> =
                    unused.iter().take(count).map(|&(number, _)| number).collect();
                self.evict(&victims)?;
            }
            if self.retired.is_empty() {
                return Err(NoTable::NoNumber);
            }
            self.maps.flush_cache().map_err(|error| NoTable::Kernel(error.kind()))?;
            self.reusable.append(&mut self.retired);
        }
        self.reusable.pop().ok_or(NoTable::NoNumber)
    }
}

/// A table that has been made, or not.
struct Made<'a> {
    source: &'a TableSource,
    table: Result<Table, ConvertError>,
    from_cache: bool,
}

fn make_one<'a>(
    source: &'a TableSource,
    cache: Option<&DiskCache>,
    limits: StoreLimits,
) -> Made<'a> {
    let table = match source {
        TableSource::Vdso => vdso::table(),
        TableSource::File(identity, file) => {
            if let Some(table) = cache.and_then(|cache| cache.load(identity)) {
                return Made { source, table: Ok(table), from_cache: true };
            }
            // The identity was taken when the mapping was looked at.
            match file.metadata() {
                Ok(now)
                    if FileIdentity::without_build_id(&now)
                        == FileIdentity { build_id: None, ..*identity } =>
                {
                    convert(file, limits.file)
                }
                Ok(_) => Err(ConvertError::Changed),
                Err(error) => Err(error.into()),
            }
        }
    };
    // What could never be loaded need not be kept until then.
    let fits = |table: &Table| table.cell_bytes() <= limits.bytes;
    let table = table.and_then(|table| {
        let too_large = ConvertError::TooLarge { what: "the table", limit: limits.bytes };
        if fits(&table) { Ok(table) } else { Err(too_large) }
    });
    Made { source, table, from_cache: false }
}
