//! All tables that are loaded: made once for each file, shared by all targets.
//!
//! Order of writing, so that a walker never meets half of something: a table's
//! rules, then its cells, its geometry, and last the mappings that point at it.
//! Taking away goes the other way round.
//!
//! A table's number is not given out again while numbers last that never were;
//! the walker's cache holds rules by (table number, address), and is flushed
//! before a number comes back.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leakd_common::unwind::{Cell, Mapping, MappingKey, Rule, TABLES, TableGeometry};
use tokio::sync::Notify;

use crate::unwind::cache::DiskCache;
use crate::unwind::image::{self, Segment};
use crate::unwind::maker::{Made, Maker};
use crate::unwind::rule_numbers::RuleNumbers;
use crate::unwind::source::{NoTable, TableKey, TableSource};
use crate::unwind::table::TableStats;
use crate::unwind::{ConvertError, Limits, Table};

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
    /// Processor time for all files of one process together, within
    /// `retry_after`.
    pub process_time: Duration,
    /// When what failed is tried again, if trying again may help.
    pub retry_after: Duration,
}

impl Default for StoreLimits {
    fn default() -> Self {
        // Two at least, so that a large file does not hold the small ones up; few
        // enough to leave the machine to those whose it is.
        let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 4);
        Self {
            bytes: 64 << 20,
            threads,
            file: Limits::default(),
            process_time: Duration::from_secs(10),
            retry_after: Duration::from_secs(60),
        }
    }
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
    BeingMade,
    Failed { why: NoTable, since: Instant },
}

/// Files remembered for giving no table.
const MAX_FAILED: usize = 4096;

/// All tables that are loaded.
pub struct TableStore<M> {
    pub(crate) maps: M,
    limits: StoreLimits,
    maker: Maker,
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
    failed: usize,
    /// See [`TableStore::take_news`].
    news: bool,
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
            maker: Maker::new(limits, cache),
            known: HashMap::new(),
            loaded: HashMap::new(),
            rules,
            clock: 0,
            next_number: 0,
            retired: Vec::new(),
            reusable: Vec::new(),
            failed: 0,
            news: false,
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

    /// Holds the table of a file of a process for one mapping. Where there is
    /// none yet it is ordered: [`NoTable::BeingMade`].
    pub fn hold(&mut self, pid: u32, source: &TableSource) -> Result<TableUse, NoTable> {
        let key = source.key();
        match self.known.get(&key) {
            Some(Known::Table(number)) => {
                if let Some(loaded) = self.loaded.get_mut(number) {
                    loaded.uses += 1;
                    loaded.last_use = self.clock;
                    return Ok(TableUse { number: *number });
                }
            }
            Some(Known::BeingMade) => return Err(NoTable::BeingMade),
            Some(Known::Failed { why, since }) if !self.worth_another_try(why, *since) => {
                return Err(why.clone());
            }
            Some(Known::Failed { .. }) | None => {}
        }
        self.learn(key, Known::BeingMade);
        self.maker.order(pid, source);
        Err(NoTable::BeingMade)
    }

    /// Holds several, and waits for those that have to be made.
    pub fn hold_all(
        &mut self,
        pid: u32,
        sources: &[TableSource],
        at_most: Duration,
    ) -> Vec<Result<TableUse, NoTable>> {
        let mut tables: Vec<_> = sources.iter().map(|source| self.hold(pid, source)).collect();
        let until = Instant::now() + at_most;
        loop {
            let missing = sources.iter().zip(&tables);
            let missing = missing.filter(|(_, table)| **table == Err(NoTable::BeingMade));
            let missing: Vec<TableKey> = missing.map(|(source, _)| source.key()).collect();
            if missing.is_empty() || Instant::now() >= until {
                return tables;
            }
            self.maker.wait(&missing, until);
            self.collect();
            for (table, source) in tables.iter_mut().zip(sources) {
                if *table == Err(NoTable::BeingMade) {
                    *table = self.hold(pid, source);
                }
            }
        }
    }

    /// Puts what has been made into the kernel.
    pub fn collect(&mut self) {
        let made = self.maker.take();
        if !made.is_empty() {
            self.clock += 1;
            self.install(made);
            self.news = true;
        }
    }

    /// Whether there are answers, since the last time, that whoever was told
    /// [`NoTable::BeingMade`] may not know.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// Waits until nothing is left to be made, or kept on disk. For tests and
    /// measurements: everybody else has better things to do.
    pub fn wait_until_idle(&mut self) {
        self.collect();
        self.maker.wait_until_idle();
    }

    /// Told when there is something to collect.
    pub fn made(&self) -> Arc<Notify> {
        self.maker.notify()
    }

    /// A process wants nothing any more.
    pub fn forget_orders(&mut self, pid: u32) {
        for key in self.maker.forget(pid) {
            self.known.remove(&key);
            // Others may have waited for it: they order it themselves.
            self.news = true;
        }
    }

    /// Gives back what [`TableStore::hold`] gave. The mapping that used it must
    /// be gone from the kernel.
    pub fn release(&mut self, table: TableUse) {
        if let Some(loaded) = self.loaded.get_mut(&table.number) {
            loaded.uses = loaded.uses.saturating_sub(1);
            loaded.last_use = self.clock;
        }
    }

    /// Whether asking for this key again would give this answer again.
    pub fn is_settled(&self, key: &TableKey, answer: &NoTable) -> bool {
        match self.known.get(key) {
            Some(Known::BeingMade) => *answer == NoTable::BeingMade,
            Some(Known::Failed { why, since }) => {
                why == answer && !self.worth_another_try(why, *since)
            }
            Some(Known::Table(_)) | None => false,
        }
    }

    /// Whether there is another answer by now, or asking again may bring one.
    pub fn has_news(&self, key: &TableKey, answer: &NoTable) -> bool {
        match self.known.get(key) {
            Some(Known::BeingMade) => false,
            Some(Known::Failed { why, since }) => {
                *answer == NoTable::BeingMade || self.worth_another_try(why, *since)
            }
            Some(Known::Table(_)) | None => *answer == NoTable::BeingMade,
        }
    }

    fn worth_another_try(&self, why: &NoTable, since: Instant) -> bool {
        use ConvertError::{Changed, Read, TookTooLong};
        let passing = match why {
            NoTable::Convert(error) => matches!(error, TookTooLong(_) | Changed | Read(_)),
            _ => true,
        };
        passing && since.elapsed() > self.limits.retry_after
    }

    fn learn(&mut self, key: TableKey, known: Known) {
        let is_failed = |known: &Known| matches!(known, Known::Failed { .. });
        if is_failed(&known) && self.failed >= MAX_FAILED {
            self.known.retain(|_, known| !is_failed(known));
            self.failed = 0;
        }
        self.failed += usize::from(is_failed(&known));
        let before = self.known.insert(key, known);
        self.failed -= usize::from(before.as_ref().is_some_and(is_failed));
    }

    fn fail(&mut self, key: TableKey, why: NoTable) {
        self.learn(key, Known::Failed { why, since: Instant::now() });
    }

    /// Puts tables that were made into the kernel's maps.
    fn install(&mut self, made: Vec<Made>) {
        let mut publish = Vec::new();
        let mut installed = Vec::new();
        for Made { key, table, from_cache } in made {
            match table.and_then(|table| self.bring_in(&key, &table)) {
                Ok((number, geometry, cells)) => {
                    publish.push((number, geometry, cells));
                    installed.push(number);
                    self.counts.from_cache += u64::from(from_cache);
                    self.counts.converted += u64::from(!from_cache);
                }
                Err(why) => self.fail(key, why),
            }
        }
        if let Err(error) = self.maps.publish_tables(publish) {
            for number in installed {
                if let Some(loaded) = self.loaded.remove(&number) {
                    self.fail(loaded.key, NoTable::Kernel(error.kind()));
                    self.retired.push(number);
                }
            }
        }
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
        self.learn(*key, Known::Table(number));
        let loaded = Loaded {
            key: *key,
            segments: table.segments.clone(),
            stats: table.stats,
            bytes,
            uses: 0,
            last_use: self.clock,
        };
        self.loaded.insert(number, loaded);
        Ok((number, cells.geometry, handle))
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
    /// first. Not those that came together with the one that needs the room: nobody
    /// has had a chance to use them.
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
