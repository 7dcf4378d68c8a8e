//! Tables and mappings of processes, in the kernel's maps.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use leakd_common::unwind::{NO_TABLE, Rule};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::AGES;
use super::kernel::{Kernel, kernel};
use crate::elf::FileIdentity;
use crate::unwind::address_space::SyncReport;
use crate::unwind::cache::DiskCache;
use crate::unwind::convert::convert_bytes;
use crate::unwind::source::{NoTable, TableSource};
use crate::unwind::store::{StoreLimits, TableStore};
use crate::unwind::{
    AddressSpaces, ConvertError, ExecutableMapping, KernelMaps, Limits, MappingSource,
};

pub(super) fn spaces(limits: StoreLimits) -> (AddressSpaces<KernelMaps>, Kernel) {
    let (maps, kernel) = kernel();
    (AddressSpaces::new(TableStore::new(maps, limits, None).unwrap()), kernel)
}

/// The mappings without a table, by their first address.
pub(super) fn reasons(report: &SyncReport) -> Vec<(u64, NoTable)> {
    report.without_table.iter().map(|one| (one.begin, one.why.clone())).collect()
}

pub(super) fn file(path: &Path) -> MappingSource {
    let file = File::open(path).unwrap();
    MappingSource::File { identity: FileIdentity::of(&file).unwrap(), file: Arc::new(file) }
}

/// This process's executable mappings.
fn own_mappings() -> Vec<ExecutableMapping> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mapping = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        // Other tests map data of files, and remove them.
        if !fields[1].contains('x') {
            return None;
        }
        let (begin, end) = fields[0].split_once('-').unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        let source = match fields.get(5) {
            Some(&"[vdso]") => MappingSource::Vdso,
            Some(path) if path.starts_with('/') => file(Path::new(path)),
            Some(&"[vsyscall]") => return None,
            _ => MappingSource::Anonymous,
        };
        let (begin, end, file_offset) = (number(begin), number(end), number(fields[2]));
        Some(ExecutableMapping { begin, end, file_offset, source })
    };
    maps.lines().filter_map(mapping).collect()
}

/// Check that for functions of each object of this process the kernel's maps
/// lead to the rule that the object's own table has.
#[test]
fn own_process() {
    let (mut spaces, kernel) = spaces(StoreLimits::default());
    let mappings = own_mappings();
    let pid = std::process::id();
    let report = spaces.sync(pid, &mappings, AGES).unwrap();
    assert_eq!((report.inserted, report.kept, report.removed), (mappings.len(), 0, 0));
    assert_eq!(reasons(&report), []);
    for address in [
        own_process as *const () as u64,
        libc::malloc as *const () as u64,
        libc::qsort as *const () as u64,
        // SAFETY: reads a word that the kernel put on the stack at exec.
        unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) } + 0xa00,
    ] {
        let mapping = kernel.mapping(pid, address).unwrap();
        let source = mappings.iter().find(|known| known.begin == mapping.begin).unwrap();
        let table = match &source.source {
            MappingSource::File { file, .. } => crate::unwind::convert(file, Limits::default()),
            _ => crate::unwind::vdso::table(),
        };
        let expected = table.unwrap().find(address - mapping.bias).unwrap();
        assert_eq!(kernel.rule_at(pid, address), Ok(expected));
        if source.source.key_is_file() {
            assert_eq!(expected.cfa_kind(), 1, "a function begins with CFA = rsp + 8");
        }
    }
    // A second process shares the tables; a second sync changes nothing.
    let counts = spaces.store().counts();
    spaces.sync(pid + 1, &mappings, AGES).unwrap();
    assert_eq!(spaces.store().counts(), counts);
    let report = spaces.sync(pid, &mappings, AGES).unwrap();
    assert_eq!((report.inserted, report.kept, report.removed), (0, mappings.len(), 0));
    spaces.forget(pid).unwrap();
    let malloc = libc::malloc as *const () as u64;
    assert_eq!(kernel.rule_at(pid, malloc), Err("no mapping"));
    assert!(kernel.rule_at(pid + 1, malloc).is_ok());
}

impl MappingSource {
    fn key_is_file(&self) -> bool {
        matches!(self, Self::File { .. })
    }
}

/// Check, over random sequences of mapping and unmapping, that after each sync
/// the trie holds exactly the mappings of a plain model, to the byte at their
/// edges.
#[test]
fn follows_a_model() {
    let (spaces, kernel) = spaces(StoreLimits::default());
    let spaces = std::cell::RefCell::new(spaces);
    let pid = 1000;
    let mut runner = TestRunner::new(Config { cases: 60, ..Config::default() });
    let library = file(Path::new("/proc/self/exe"));
    let mapping = (0u64..60, 1u64..20, any::<bool>());
    let steps = proptest::collection::vec(proptest::collection::vec(mapping, 0..8), 1..6);
    let result = runner.run(&steps, |steps| {
        let mut spaces = spaces.borrow_mut();
        for step in steps {
            let mut model = BTreeMap::new();
            let mut end = 0;
            let mut sorted = step;
            sorted.sort_unstable();
            for (page, pages, anonymous) in sorted {
                let begin = (0x7f12_3450_0000 + (page << 12)).max(end);
                end = begin + (pages << 12);
                let source = if anonymous { MappingSource::Anonymous } else { library.clone() };
                model.insert(begin, ExecutableMapping { begin, end, file_offset: 0, source });
            }
            let mappings: Vec<_> = model.values().cloned().collect();
            let report = spaces.sync(pid, &mappings, AGES).unwrap();
            prop_assert_eq!(report.kept + report.inserted, mappings.len());
            for page in 0..400u64 {
                for address in [0, 0xfff].map(|low| 0x7f12_344f_0000 + (page << 12) + low) {
                    let expected = model.range(..=address).next_back();
                    let expected = expected.filter(|(_, mapping)| address < mapping.end);
                    let found = kernel.mapping(pid, address);
                    prop_assert_eq!(
                        found.map(|found| (found.begin, found.end)),
                        expected.map(|(_, mapping)| (mapping.begin, mapping.end))
                    );
                    let anonymous = |mapping: &ExecutableMapping| !mapping.source.key_is_file();
                    prop_assert_eq!(
                        found.map(|found| found.table == NO_TABLE),
                        expected.map(|(_, mapping)| anonymous(mapping))
                    );
                }
            }
        }
        spaces.forget(pid).unwrap();
        Ok(())
    });
    result.unwrap();
}

/// A copy of a small ELF file that is a file of its own.
pub(super) fn copy(directory: &tempfile::TempDir, name: &str) -> MappingSource {
    let path = directory.path().join(name);
    std::fs::copy("/bin/true", &path).unwrap();
    file(&path)
}

/// Maps the text of a copy of /bin/true.
pub(super) fn mapping_of(source: MappingSource) -> ExecutableMapping {
    let bytes = std::fs::read("/bin/true").unwrap();
    let table = convert_bytes(&*bytes, Limits::default()).unwrap();
    let text = table.segments.iter().find(|segment| segment.executable).unwrap();
    let begin = 0x5555_0000_0000;
    let end = begin + text.memory_size.next_multiple_of(4096);
    ExecutableMapping { begin, end, file_offset: text.file_offset, source }
}

/// Check that the least recently used table goes when memory is short, that one
/// in use never does, and that a mapping then goes without.
#[test]
fn memory_limit() {
    let bytes = std::fs::read("/bin/true").unwrap();
    let size = convert_bytes(&*bytes, Limits::default()).unwrap().cell_bytes();
    let limits = StoreLimits { bytes: 3 * size + size / 2, ..Default::default() };
    let (mut spaces, kernel) = spaces(limits);
    let directory = tempfile::tempdir().unwrap();
    let sync = |spaces: &mut AddressSpaces<KernelMaps>, pid: u32, name: &str| {
        let mapping = mapping_of(copy(&directory, name));
        spaces.sync(pid, &[mapping], AGES).unwrap()
    };
    for pid in 1..=3 {
        assert_eq!(sync(&mut spaces, pid, &pid.to_string()).without_table, []);
    }
    let number = |pid| kernel.mapping(pid, 0x5555_0000_0000).map(|mapping| mapping.table);
    let [first, second, third] = [1, 2, 3].map(|pid| number(pid).unwrap());

    let report = sync(&mut spaces, 4, "4");
    assert_eq!(reasons(&report), [(0x5555_0000_0000, NoTable::NoMemory { limit: limits.bytes })]);
    assert_eq!(number(4), Some(NO_TABLE));

    spaces.forget(2).unwrap();
    spaces.forget(1).unwrap();
    assert!(kernel.table(first).is_some() && kernel.table(second).is_some(), "kept for later");
    assert_eq!(sync(&mut spaces, 4, "5").without_table, []);
    assert_eq!(spaces.store().counts().evicted, 1);
    let fourth = number(4).unwrap();
    assert!(![first, second, third].contains(&fourth), "a number never used before");
    assert!(kernel.table(third).is_some() && kernel.table(fourth).is_some());
    assert_eq!(
        [first, second]
            .map(|number| kernel.table(number).is_some())
            .iter()
            .filter(|there| **there)
            .count(),
        1
    );
    assert!(spaces.store().counts().bytes <= limits.bytes);
}

/// Check that one process gets no more than half of the memory, and another one
/// still finds room.
#[test]
fn process_quota() {
    let bytes = std::fs::read("/bin/true").unwrap();
    let size = convert_bytes(&*bytes, Limits::default()).unwrap().cell_bytes();
    let limits = StoreLimits { bytes: 4 * size + 100, ..Default::default() };
    let (mut spaces, kernel) = spaces(limits);
    let directory = tempfile::tempdir().unwrap();
    let mappings: Vec<_> = (0..3u64)
        .map(|index| {
            let mut mapping = mapping_of(copy(&directory, &index.to_string()));
            mapping.begin += index << 32;
            mapping.end += index << 32;
            mapping
        })
        .collect();
    let report = spaces.sync(1, &mappings, AGES).unwrap();
    let why = NoTable::NoMemory { limit: limits.bytes / 2 };
    assert_eq!(reasons(&report), [(mappings[2].begin, why)]);
    assert_eq!(kernel.mapping(1, mappings[2].begin).unwrap().table, NO_TABLE);
    assert_eq!(spaces.sync(2, &mappings[2..], AGES).unwrap().without_table, []);
    // The same file a second time costs nothing.
    let mut again = mappings[..2].to_vec();
    again.extend(mappings[..1].iter().cloned().map(|mut mapping| {
        mapping.begin += 9 << 32;
        mapping.end += 9 << 32;
        mapping
    }));
    assert_eq!(spaces.sync(1, &again, AGES).unwrap().without_table, []);
}

/// Check that tables that are too large together for one go are loaded in
/// several, that a table too large by itself is refused, and that with no time
/// at all there is an answer, too.
#[test]
fn little_memory_and_time() {
    let size = |path: &Path| {
        crate::unwind::convert(&File::open(path).unwrap(), Limits::default()).unwrap().cell_bytes()
    };
    let (small, large) = (Path::new("/bin/true"), Path::new("/proc/self/exe"));
    let limits = StoreLimits { bytes: 3 * size(small), threads: 1, ..Default::default() };
    assert!(size(large) > limits.bytes);
    let directory = tempfile::tempdir().unwrap();
    let source = |name: &str| mapping_of(copy(&directory, name)).source.table_source().unwrap();
    let sources: Vec<_> = ["1", "2", "3", "4", "5"].map(source).into();

    let (maps, _kernel) = kernel();
    let mut store = TableStore::new(maps, limits, None).unwrap();
    let results = store.hold_all(1, &sources, AGES);
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3);
    let no_memory = Err(NoTable::NoMemory { limit: limits.bytes });
    assert_eq!(results.iter().filter(|&result| *result == no_memory).count(), 2);
    let too_large = ConvertError::TooLarge { what: "the table", limit: limits.bytes };
    let results = store.hold_all(1, &[file(large).table_source().unwrap()], AGES);
    assert_eq!(results, [Err(NoTable::Convert(too_large))]);

    let (maps, _kernel) = kernel();
    let limits = StoreLimits { process_time: Duration::ZERO, ..limits };
    let mut store = TableStore::new(maps, limits, None).unwrap();
    assert!(store.hold_all(1, &sources, AGES).iter().all(|result| *result == Err(NoTable::NoTime)));
}

/// Check that when all numbers have been given out they are used again, of
/// tables that no mapping uses, and that the kernel's maps are right all along.
#[test]
fn numbers_come_back() {
    let (maps, kernel) = kernel();
    let limits = StoreLimits { process_time: AGES, ..Default::default() };
    let mut store = TableStore::new(maps, limits, None).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut numbers = std::collections::HashMap::new();
    let MappingSource::File { identity, file } = copy(&directory, "file") else { panic!() };
    let source = |name: usize| {
        // As if each were a file of its own.
        let file = Arc::clone(&file);
        TableSource::File(FileIdentity { changed_ns: name as i64, ..identity }, file)
    };
    let kept = store.hold_all(1, &[source(usize::MAX)], AGES).remove(0).unwrap();
    for round in 0..5 {
        let sources: Vec<_> = (0..1000).map(|index| source(round * 1000 + index)).collect();
        for result in store.hold_all(1, &sources, AGES) {
            let table = result.unwrap();
            assert_ne!(table.number, kept.number);
            *numbers.entry(table.number).or_insert(0) += 1;
            store.release(table);
        }
    }
    assert!(numbers.len() <= 4095);
    assert_eq!(numbers.values().sum::<i32>(), 5000);
    let counts = store.counts();
    assert!(counts.evicted >= 905, "{counts:?}");
    assert_eq!(counts.tables as u64 + counts.evicted, 5001);
    assert!(kernel.table(kept.number).is_some());
}

/// Check that a file that gives no table has its mapping all the same, with the
/// reason, and is not read again.
#[test]
fn without_table() {
    let (mut spaces, kernel) = spaces(StoreLimits::default());
    let mut script = tempfile::NamedTempFile::new().unwrap();
    script.write_all(b"#!/bin/sh\n").unwrap();
    let mapping = ExecutableMapping {
        begin: 0x1000,
        end: 0x3000,
        file_offset: 0,
        source: file(script.path()),
    };
    let why = NoTable::Convert(ConvertError::NotElf);
    for kept in [0, 1] {
        let report = spaces.sync(9, std::slice::from_ref(&mapping), AGES).unwrap();
        assert_eq!(reasons(&report), [(0x1000, why.clone())]);
        assert_eq!(report.kept, kept);
    }
    assert_eq!(kernel.rule_at(9, 0x2fff), Err("mapping without a table"));
}

/// Check that mappings that overlap, are empty, or need too many prefixes are
/// left out and counted.
#[test]
fn contradicting_mappings() {
    let (mut spaces, kernel) = spaces(StoreLimits::default());
    let anonymous = |begin, end| ExecutableMapping {
        begin,
        end,
        file_offset: 0,
        source: MappingSource::Anonymous,
    };
    let mappings =
        [anonymous(0x9000, 0x5000), anonymous(0x5000, 0x8000), anonymous(0x7000, 0x9000)];
    let report = spaces.sync(5, &mappings, AGES).unwrap();
    assert_eq!((report.inserted, report.left_out), (1, 1));
    assert_eq!(kernel.mapping(5, 0x7000).map(|mapping| mapping.begin), Some(0x5000));
    assert_eq!(kernel.mapping(5, 0x8000), None);

    let many: Vec<_> =
        (1..40_000).map(|page| anonymous(page << 13, (page << 13) + 0x1000)).collect();
    let report = spaces.sync(5, &many, AGES).unwrap();
    assert_eq!(report.prefixes, crate::unwind::address_space::MAX_PREFIXES);
    assert_eq!(report.left_out, many.len() - report.inserted);
    spaces.forget(5).unwrap();
    assert_eq!(kernel.mapping(5, 1 << 13), None);
}

/// Check that rules are shared: the same file twice adds none.
#[test]
fn rules_are_shared() {
    let (mut spaces, kernel) = spaces(StoreLimits::default());
    let directory = tempfile::tempdir().unwrap();
    spaces.sync(1, &[mapping_of(copy(&directory, "one"))], AGES).unwrap();
    let rules = spaces.store().counts().rules;
    assert!(rules > 5);
    spaces.sync(2, &[mapping_of(copy(&directory, "two"))], AGES).unwrap();
    let counts = spaces.store().counts();
    assert_eq!((counts.rules, counts.tables), (rules, 2));
    assert_eq!((kernel.rule(0), kernel.rule(1)), (Rule::NONE, Rule::UNSUPPORTED));
}

/// Check that a second store takes from the disk cache what the first one made,
/// and that both come to the same rules.
#[test]
fn disk_cache() {
    let directory = tempfile::tempdir().unwrap();
    let mappings = own_mappings();
    let (pid, malloc) = (std::process::id(), libc::malloc as *const () as u64);
    let run = || {
        let cache = DiskCache::open(&directory.path().join("cache"), 1 << 30).unwrap();
        let (maps, kernel) = kernel();
        let store = TableStore::new(maps, StoreLimits::default(), Some(cache)).unwrap();
        let mut spaces = AddressSpaces::new(store);
        spaces.sync(pid, &mappings, AGES).unwrap();
        spaces.store_mut().wait_until_idle();
        let counts = spaces.store().counts();
        (counts, kernel.rule_at(pid, malloc).unwrap())
    };
    let (cold, rule) = run();
    let (warm, same_rule) = run();
    // The vdso is in no file.
    assert_eq!((cold.from_cache, warm.converted), (0, 1));
    assert_eq!((cold.converted, cold.bytes), (warm.from_cache + 1, warm.bytes));
    assert_eq!(rule, same_rule);
}
