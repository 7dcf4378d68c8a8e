//! Who waits for tables that are being made: nobody, unless he says so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use leakd_common::unwind::NO_TABLE;

use super::AGES;
use super::address_spaces::{copy, mapping_of, reasons, spaces};
use super::elf_file::slow_file;
use crate::elf::FileIdentity;
use crate::unwind::maker::Maker;
use crate::unwind::source::{NoTable, TableSource};
use crate::unwind::store::StoreLimits;
use crate::unwind::{ConvertError, ExecutableMapping, Limits, MappingSource};

/// Limits under which each slow file takes so much processor time.
fn limits(slow: Duration, threads: usize) -> StoreLimits {
    let file = Limits { time: slow, ..Limits::default() };
    StoreLimits { threads, file, ..StoreLimits::default() }
}

fn slow() -> MappingSource {
    let file = slow_file();
    MappingSource::File { identity: FileIdentity::of(&file).unwrap(), file: Arc::new(file) }
}

fn slow_mapping() -> ExecutableMapping {
    ExecutableMapping { begin: 0x1000_0000, end: 0x1100_0000, file_offset: 0, source: slow() }
}

/// Check that a file that takes long holds nobody up: its own process has its
/// mappings, without a table; another process has its tables; and when the file
/// is given up, that is told.
#[test]
fn nobody_waits() {
    let (mut spaces, kernel) = spaces(limits(Duration::from_secs(3), 2));
    let directory = tempfile::tempdir().unwrap();
    let mapping = slow_mapping();
    let report = spaces.sync(1, std::slice::from_ref(&mapping), Duration::ZERO).unwrap();
    assert_eq!(reasons(&report), [(mapping.begin, NoTable::BeingMade)]);
    assert_eq!(kernel.mapping(1, mapping.begin).unwrap().table, NO_TABLE);

    let small = mapping_of(copy(&directory, "small"));
    let report = spaces.sync(2, std::slice::from_ref(&small), AGES).unwrap();
    assert_eq!(report.without_table, []);
    assert!(kernel.rule_at(2, small.begin + 0x100).is_ok());
    spaces.collect().unwrap();
    assert_eq!(spaces.without_table(1)[0].why, NoTable::BeingMade, "it takes three seconds");
    // Looking again orders nothing again.
    let report = spaces.sync(1, std::slice::from_ref(&mapping), Duration::ZERO).unwrap();
    assert_eq!((report.kept, report.inserted), (1, 0));

    while !spaces.collect().unwrap().contains(&1) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let why = NoTable::Convert(ConvertError::TookTooLong(3000));
    assert_eq!(spaces.without_table(1)[0].why, why);
    assert_eq!(spaces.store().counts().converted, 1);
}

/// Check that a table that comes later gets to all processes that wait for it,
/// and their mappings to the table; each is told once.
#[test]
fn comes_later() {
    let (mut spaces, kernel) = spaces(StoreLimits::default());
    let directory = tempfile::tempdir().unwrap();
    let small = mapping_of(copy(&directory, "small"));
    for pid in [1, 2] {
        let report = spaces.sync(pid, std::slice::from_ref(&small), Duration::ZERO).unwrap();
        assert_eq!(reasons(&report), [(small.begin, NoTable::BeingMade)]);
    }
    assert_eq!(kernel.rule_at(1, small.begin), Err("mapping without a table"));
    let made = spaces.store().made();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(made.notified());
    let mut told = spaces.collect().unwrap();
    told.sort_unstable();
    assert_eq!(told, [1, 2]);
    for pid in [1, 2] {
        assert_eq!(spaces.without_table(pid), []);
        assert!(kernel.rule_at(pid, small.begin + 0x100).is_ok());
    }
    assert!(spaces.collect().unwrap().is_empty());
    assert_eq!(spaces.store().counts().converted, 1);
}

/// Check that what a process had ordered is not made once it is gone, unless
/// another one waits for it as well.
#[test]
fn orders_of_a_process_that_goes() {
    let (mut spaces, kernel) = spaces(limits(Duration::from_secs(1), 1));
    let directory = tempfile::tempdir().unwrap();
    // Keeps the thread busy.
    spaces.sync(3, &[slow_mapping()], Duration::ZERO).unwrap();
    let [alone, shared] = ["alone", "shared"].map(|name| mapping_of(copy(&directory, name)));
    let shared_too = ExecutableMapping {
        begin: shared.begin + (1 << 32),
        end: shared.end + (1 << 32),
        ..shared.clone()
    };
    spaces.sync(1, &[alone, shared_too], Duration::ZERO).unwrap();
    spaces.sync(2, std::slice::from_ref(&shared), Duration::ZERO).unwrap();
    spaces.forget(1).unwrap();
    while !spaces.without_table(2).is_empty() {
        spaces.collect().unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(kernel.rule_at(2, shared.begin + 0x100).is_ok());
    assert_eq!(spaces.store().counts().converted, 1);
}

/// Check that a process with many slow files gets its share of the time and no
/// more, and that another one need not wait for all of them.
#[test]
fn shares() {
    let limits = limits(Duration::from_millis(100), 1);
    let limits = StoreLimits { process_time: Duration::from_millis(150), ..limits };
    let maker = Maker::new(limits, None);
    let source = |source: MappingSource| source.table_source().unwrap();
    let many: Vec<TableSource> = (0..6).map(|_| source(slow())).collect();
    let directory = tempfile::tempdir().unwrap();
    let small = source(copy(&directory, "small"));
    // So that all are ordered before the second is begun.
    for (pid, source) in many.iter().map(|source| (1, source)).chain([(2, &small)]) {
        maker.order(pid, source);
    }
    let keys: Vec<_> = many.iter().chain([&small]).map(TableSource::key).collect();
    maker.wait(&keys, Instant::now() + AGES);
    let made = maker.take();
    assert_eq!(made.len(), 7);
    let place = made.iter().position(|made| made.key == small.key()).unwrap();
    assert!(made[place].table.is_ok() && place <= 1, "{place} slow ones came first");
    let count = |why: NoTable| made.iter().filter(|made| made.table == Err(why.clone())).count();
    assert_eq!(count(NoTable::Convert(ConvertError::TookTooLong(100))), 2);
    assert_eq!(count(NoTable::NoTime), 4);
}

/// Check that threads that made more than there is room for go on when it has
/// been taken.
#[test]
fn more_than_fits() {
    let directory = tempfile::tempdir().unwrap();
    let sources: Vec<TableSource> =
        (0..20).map(|name| copy(&directory, &name.to_string()).table_source().unwrap()).collect();
    let maker = Maker::new(StoreLimits::default(), None);
    maker.order(1, &sources[0]);
    maker.wait(&[sources[0].key()], Instant::now() + AGES);
    let size = maker.take()[0].table.as_ref().unwrap().cell_bytes();

    let limits = StoreLimits { bytes: 4 * size, threads: 3, ..StoreLimits::default() };
    let maker = Maker::new(limits, None);
    for source in &sources {
        maker.order(1, source);
    }
    let keys: Vec<_> = sources.iter().map(TableSource::key).collect();
    let mut count = 0;
    while count < sources.len() {
        maker.wait(&keys, Instant::now() + AGES);
        let made = maker.take();
        // Those that were begun while there was room.
        assert!((1..=5 + 3).contains(&made.len()), "{}", made.len());
        assert!(made.iter().all(|made| made.table.is_ok()));
        count += made.len();
    }
    assert_eq!(count, sources.len());
}
