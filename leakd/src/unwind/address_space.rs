//! The executable mappings of processes, kept in the kernel's trie.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leakd_common::unwind::{Mapping, MappingKey, NO_TABLE};
use nix::time::{ClockId, clock_gettime};

use crate::elf::FileIdentity;
use crate::unwind::ConvertError;
use crate::unwind::prefix::prefixes;
use crate::unwind::source::{NoTable, TableKey, TableSource};
use crate::unwind::store::{MappingPrefix, TableStore, TableUse, UnwindMaps};

/// Prefixes that one process may take: a tenth of what all have. Usual ones
/// take some hundreds.
pub const MAX_PREFIXES: usize = 24 << 10;
/// How often files that gave no table are looked through, for those that are
/// worth another try by now.
const RETRY: Duration = Duration::from_secs(1);

/// One executable mapping, as /proc/PID/maps has it.
#[derive(Clone, Debug)]
pub struct ExecutableMapping {
    /// First address.
    pub begin: u64,
    /// First address behind it.
    pub end: u64,
    /// Where the file's part begins, in bytes.
    pub file_offset: u64,
    /// What is mapped.
    pub source: MappingSource,
}

/// What is mapped.
#[derive(Clone, Debug)]
pub enum MappingSource {
    /// A file.
    File {
        /// As [`FileIdentity::of`] gives it for `file`.
        identity: FileIdentity,
        /// The file itself, open for reading; not a path, which may lead to
        /// another file by now.
        file: Arc<File>,
    },
    /// The kernel's vdso.
    Vdso,
    /// No file: code made at run time.
    Anonymous,
}

impl MappingSource {
    pub(crate) fn table_source(&self) -> Option<TableSource> {
        match self {
            Self::File { identity, file } => Some(TableSource::File(*identity, Arc::clone(file))),
            Self::Vdso => Some(TableSource::Vdso),
            Self::Anonymous => None,
        }
    }
}

/// What a sync did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncReport {
    /// Mappings that were there before.
    pub kept: usize,
    /// Mappings that are new.
    pub inserted: usize,
    /// Mappings that are gone.
    pub removed: usize,
    /// CLOCK_MONOTONIC, ns, when what was stale had been removed and nothing put
    /// in its place yet: until then, walks may have used it.
    pub removed_ns: u64,
    /// Prefixes that the process takes now.
    pub prefixes: usize,
    /// Mappings of files that have no table, or none yet.
    pub without_table: Vec<WithoutTable>,
    /// Mappings beyond [`MAX_PREFIXES`], or that contradict the others; stacks
    /// end there.
    pub left_out: usize,
}

/// A mapping of a file that has no table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WithoutTable {
    /// First address.
    pub begin: u64,
    /// First address behind it.
    pub end: u64,
    /// The reason; [`NoTable::BeingMade`] is one that passes.
    pub why: NoTable,
}

/// A mapping that is in the kernel.
#[derive(Debug)]
struct Kept {
    end: u64,
    file_offset: u64,
    backing: Backing,
}

/// Where a mapping is.
#[derive(Clone, Copy)]
struct Place {
    begin: u64,
    end: u64,
    file_offset: u64,
}

impl Place {
    fn of(mapping: &ExecutableMapping) -> Self {
        let ExecutableMapping { begin, end, file_offset, .. } = *mapping;
        Self { begin, end, file_offset }
    }
}

/// The tables of one process.
struct Quota {
    bytes: u64,
    tables: HashSet<u32>,
}

/// Where a mapping's unwind information is.
#[derive(Debug)]
enum Backing {
    Anonymous,
    Table(TableKey, TableUse),
    Without(TableSource, NoTable),
}

impl Backing {
    fn key(&self) -> Option<TableKey> {
        match self {
            Self::Anonymous => None,
            Self::Table(key, _) => Some(*key),
            Self::Without(source, _) => Some(source.key()),
        }
    }
}

/// The executable mappings of all targets.
#[derive(Debug)]
pub struct AddressSpaces<M> {
    store: TableStore<M>,
    /// By process, by first address.
    processes: HashMap<u32, BTreeMap<u64, Kept>>,
    /// When what failed was last looked through.
    retried: Instant,
}

impl<M: UnwindMaps> AddressSpaces<M> {
    /// None yet.
    pub fn new(store: TableStore<M>) -> Self {
        Self { store, processes: HashMap::new(), retried: Instant::now() }
    }

    /// The tables.
    pub fn store(&self) -> &TableStore<M> {
        &self.store
    }

    /// The tables, to wait for them.
    pub fn store_mut(&mut self) -> &mut TableStore<M> {
        &mut self.store
    }

    /// Makes the kernel hold exactly these mappings for process `pid` (as the
    /// initial pid namespace numbers it). Tables that have to be made are waited
    /// for `at_most` so long; what comes later, [`AddressSpaces::collect`] puts
    /// in its place.
    ///
    /// On an error the process has none left.
    pub fn sync(
        &mut self,
        pid: u32,
        mappings: &[ExecutableMapping],
        at_most: Duration,
    ) -> io::Result<SyncReport> {
        let result = self.try_sync(pid, mappings, at_most);
        if result.is_err() {
            // Its own error would say nothing new.
            let _ = self.forget(pid);
        }
        result
    }

    /// Puts tables that have been made in their places; gives the processes whose
    /// mappings have a table now, or a reason for having none. Costs nothing
    /// where there is none. Now and then it tries again what failed.
    ///
    /// On an error the process has no mappings left.
    pub fn collect(&mut self) -> io::Result<Vec<u32>> {
        self.store.collect();
        if !self.store.take_news() && self.retried.elapsed() < RETRY {
            return Ok(Vec::new());
        }
        self.retried = Instant::now();
        let mut changed = Vec::new();
        let pids: Vec<u32> = self.processes.keys().copied().collect();
        for pid in pids {
            match self.ask_again(pid) {
                Ok(false) => {}
                Ok(true) => changed.push(pid),
                Err(error) => {
                    let _ = self.forget(pid);
                    return Err(error);
                }
            }
        }
        Ok(changed)
    }

    /// Whether the kernel holds what the last [`AddressSpaces::sync`] of a process
    /// gave: an error in that, or later, takes it away.
    pub fn knows(&self, pid: u32) -> bool {
        self.processes.contains_key(&pid)
    }

    /// Mappings of a process that are of files and have no table.
    pub fn without_table(&self, pid: u32) -> Vec<WithoutTable> {
        let kept = self.processes.get(&pid).into_iter().flatten();
        let without = |(&begin, kept): (&u64, &Kept)| match &kept.backing {
            Backing::Without(_, why) => {
                Some(WithoutTable { begin, end: kept.end, why: why.clone() })
            }
            Backing::Anonymous | Backing::Table(..) => None,
        };
        kept.filter_map(without).collect()
    }

    /// Takes everything away: the process has ended, or runs another program.
    pub fn forget(&mut self, pid: u32) -> io::Result<()> {
        self.store.forget_orders(pid);
        let kept = self.processes.remove(&pid).unwrap_or_default();
        self.remove(pid, kept)
    }

    fn try_sync(
        &mut self,
        pid: u32,
        mappings: &[ExecutableMapping],
        at_most: Duration,
    ) -> io::Result<SyncReport> {
        let mut report = SyncReport::default();
        let wanted = in_order(mappings, &mut report);
        let mut old = self.processes.remove(&pid).unwrap_or_default();
        let mut process = BTreeMap::new();
        let mut new = Vec::new();
        for mapping in wanted {
            let source = mapping.source.table_source();
            let key = source.as_ref().map(TableSource::key);
            match old.remove(&mapping.begin) {
                Some(was) if self.still_holds(&was, mapping, key) => {
                    process.insert(mapping.begin, was);
                }
                was => {
                    old.extend(was.map(|was| (mapping.begin, was)));
                    new.push((mapping, source));
                }
            }
        }
        (report.kept, report.removed, report.inserted) = (process.len(), old.len(), new.len());
        self.processes.insert(pid, process);
        // What is stale goes before tables are made, which may take a while.
        self.remove(pid, old)?;
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
        report.removed_ns = Duration::from(now).as_nanos() as u64;

        let sources: Vec<_> = new.iter().filter_map(|(_, source)| source.clone()).collect();
        let mut tables = self.store.hold_all(pid, &sources, at_most).into_iter();
        let mut entries = Vec::new();
        let mut quota = self.quota(pid);
        for (mapping, source) in new {
            let table = source.and_then(|source| Some((source, tables.next()?)));
            let table = table.map(|(source, table)| (source, self.within(&mut quota, table)));
            let place = Place::of(mapping);
            let backing = self.add_prefixes(pid, place, table, &mut entries);
            let kept = Kept { end: mapping.end, file_offset: mapping.file_offset, backing };
            self.processes.entry(pid).or_default().insert(mapping.begin, kept);
        }
        self.store.maps.insert_mappings(&entries)?;
        for (&begin, kept) in self.processes.get(&pid).into_iter().flatten() {
            report.prefixes += prefixes(begin, kept.end).count();
        }
        report.without_table = self.without_table(pid);
        Ok(report)
    }

    /// Asks again for the tables of a process that were not there; gives whether
    /// there is any answer that was not known.
    fn ask_again(&mut self, pid: u32) -> io::Result<bool> {
        let mut asked = Vec::new();
        for (&begin, kept) in self.processes.get(&pid).into_iter().flatten() {
            if let Backing::Without(source, why) = &kept.backing
                && self.store.has_news(&source.key(), why)
            {
                let place = Place { begin, end: kept.end, file_offset: kept.file_offset };
                asked.push((place, source.clone(), why.clone()));
            }
        }
        let (mut entries, mut changed) = (Vec::new(), false);
        let mut quota = self.quota(pid);
        for (place, source, why) in asked {
            let table = self.store.hold(pid, &source);
            let table = self.within(&mut quota, table);
            if table.as_ref().err() == Some(&why) {
                continue;
            }
            changed = true;
            let mut prefixes = Vec::new();
            let backing = self.add_prefixes(pid, place, Some((source, table)), &mut prefixes);
            // The kernel has it without a table already.
            if matches!(backing, Backing::Table(..)) {
                entries.append(&mut prefixes);
            }
            let kept = Kept { end: place.end, file_offset: place.file_offset, backing };
            self.processes.entry(pid).or_default().insert(place.begin, kept);
        }
        self.store.maps.insert_mappings(&entries)?;
        Ok(changed)
    }

    /// Whether a mapping is the one that is in the kernel, and looking again
    /// could change nothing.
    fn still_holds(&self, was: &Kept, is: &ExecutableMapping, key: Option<TableKey>) -> bool {
        let same = (was.end, was.file_offset, was.backing.key()) == (is.end, is.file_offset, key);
        same && match &was.backing {
            Backing::Anonymous | Backing::Table(..) => true,
            Backing::Without(source, why) => self.store.is_settled(&source.key(), why),
        }
    }

    /// What a process holds.
    fn quota(&self, pid: u32) -> Quota {
        let mut quota = Quota { bytes: 0, tables: HashSet::new() };
        for kept in self.processes.get(&pid).into_iter().flat_map(BTreeMap::values) {
            if let Backing::Table(_, table) = &kept.backing
                && quota.tables.insert(table.number)
            {
                quota.bytes += self.store.table_bytes(table);
            }
        }
        quota
    }

    /// Gives a table back that is too much for its process.
    fn within(
        &mut self,
        quota: &mut Quota,
        table: Result<TableUse, NoTable>,
    ) -> Result<TableUse, NoTable> {
        let table = table?;
        if quota.tables.contains(&table.number) {
            return Ok(table);
        }
        let (bytes, limit) = (self.store.table_bytes(&table), self.store.process_quota());
        if quota.bytes + bytes > limit {
            self.store.release(table);
            return Err(NoTable::NoMemory { limit });
        }
        quota.tables.insert(table.number);
        quota.bytes += bytes;
        Ok(table)
    }

    /// Adds a mapping's prefixes to `entries`. A table whose segments do not
    /// cover the mapping is given back.
    fn add_prefixes(
        &mut self,
        pid: u32,
        place: Place,
        table: Option<(TableSource, Result<TableUse, NoTable>)>,
        entries: &mut Vec<(MappingPrefix, Mapping)>,
    ) -> Backing {
        let Place { begin, end, file_offset } = place;
        let mut value = Mapping { begin, end, bias: 0, table: NO_TABLE, reserved: 0 };
        let backing = match table {
            None => Backing::Anonymous,
            Some((source, Err(why))) => Backing::Without(source, why),
            Some((source, Ok(table))) => match self.store.bias(&table, begin, file_offset) {
                Some(bias) => {
                    (value.bias, value.table) = (bias, table.number);
                    Backing::Table(source.key(), table)
                }
                None => {
                    self.store.release(table);
                    let why = ConvertError::Damaged("no segment covers the mapping");
                    Backing::Without(source, NoTable::Convert(why))
                }
            },
        };
        entries.extend(trie_prefixes(pid, begin, end).map(|prefix| (prefix, value)));
        backing
    }

    /// Takes mappings out of the kernel, then gives their tables back.
    fn remove(&mut self, pid: u32, old: BTreeMap<u64, Kept>) -> io::Result<()> {
        let blocks = old.iter().flat_map(|(&begin, kept)| trie_prefixes(pid, begin, kept.end));
        let removed = self.store.maps.remove_mappings(&blocks.collect::<Vec<_>>());
        // Where that failed a mapping may still point at its table: then the
        // table stays in use, for good, rather than be given to another file.
        if removed.is_ok() {
            for kept in old.into_values() {
                if let Backing::Table(_, table) = kept.backing {
                    self.store.release(table);
                }
            }
        }
        removed
    }
}

/// Sorted, without those that overlap the one in front (the file is not read in
/// one instant, and may be in between two states) and those beyond the limit.
fn in_order<'a>(
    mappings: &'a [ExecutableMapping],
    report: &mut SyncReport,
) -> Vec<&'a ExecutableMapping> {
    let mut sorted: Vec<_> =
        mappings.iter().filter(|mapping| mapping.begin < mapping.end).collect();
    sorted.sort_by_key(|mapping| mapping.begin);
    let (mut end, mut taken) = (0, 0);
    let given = sorted.len();
    sorted.retain(|mapping| {
        let count = prefixes(mapping.begin, mapping.end).count();
        let fits = mapping.begin >= end && taken + count <= MAX_PREFIXES;
        if fits {
            end = mapping.end;
            taken += count;
        }
        fits
    });
    report.left_out = given - sorted.len();
    sorted
}

/// The trie's prefixes for a range of a process.
fn trie_prefixes(pid: u32, begin: u64, end: u64) -> impl Iterator<Item = MappingPrefix> {
    prefixes(begin, end).map(move |(address, bits)| MappingPrefix {
        // Process and padding come first: 64 bits.
        length: 64 + bits,
        key: MappingKey::new(pid, address),
    })
}
