//! Files that change, go, or never were any.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::AGES;
use super::hostile::{ask, loader};
use crate::elf::FileIdentity;
use crate::unwind::source::{NoTable, TableSource};
use crate::unwind::store::{StoreLimits, TableStore};
use crate::unwind::{ConvertError, Limits, convert};

const LIMITS: Limits = Limits { bytes: 64 << 20, time: Duration::from_secs(5) };

/// Raises a flag when it goes, in a panic too.
struct Raise<'a>(&'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Check that a file that is rewritten, grows and shrinks while it is converted
/// ends in a table or an error, and that a change is noticed.
#[test]
fn changed_while_read() {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(loader(), 0).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let size = loader().len() as u64;
            for round in (0..).take_while(|_| !done.load(Ordering::Relaxed)) {
                // Shorter by up to half, whole again, longer.
                file.set_len(size - round * 4096 % (size / 2)).unwrap();
                file.write_all_at(loader(), 0).unwrap();
                file.set_len(size + round % 64 + 1).unwrap();
            }
        });
        let _done = Raise(&done);
        let mut outcomes = (0..).map(|_| convert(&file, LIMITS));
        // However often the writer gets no turn, once it does.
        let noticed = outcomes.find(|outcome| match outcome {
            Ok(table) => {
                ask(table);
                false
            }
            Err(error) => *error == ConvertError::Changed,
        });
        assert!(noticed.is_some());
    });
}

/// Check that a file gives its table after it was deleted, with another one at
/// its path, and after its owner was changed; and that one gives none to which
/// somebody wrote after its mapping was looked at.
#[test]
fn between_mapping_and_reading() {
    let (maps, _kernel) = super::kernel::kernel();
    let mut store = TableStore::new(maps, StoreLimits::default(), None).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("library.so");
    let open = || {
        std::fs::write(&path, loader()).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let source = TableSource::File(FileIdentity::of(&file).unwrap(), Arc::new(file));
        // The file system's clock has ticks.
        std::thread::sleep(Duration::from_millis(20));
        source
    };
    let is_another = |source: &TableSource| match source {
        TableSource::File(identity, file) => FileIdentity::of(file).unwrap() != *identity,
        TableSource::Vdso => false,
    };

    let replaced = open();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, b"another one").unwrap();
    assert!(is_another(&replaced), "its ctime tells that it lost its name");
    assert!(store.hold_all(1, &[replaced], AGES)[0].is_ok());

    let given_away = open();
    std::os::unix::fs::chown(&path, Some(1), None).unwrap();
    assert!(is_another(&given_away));
    assert!(store.hold_all(1, &[given_away], AGES)[0].is_ok());

    let written_to = open();
    let TableSource::File(_, file) = &written_to else { unreachable!() };
    file.write_all_at(b"!", 5000).unwrap();
    let why = NoTable::Convert(ConvertError::Changed);
    assert_eq!(store.hold_all(1, &[written_to], AGES), [Err(why.clone())]);

    let longer = open();
    let TableSource::File(_, file) = &longer else { unreachable!() };
    file.set_len(loader().len() as u64 + 1).unwrap();
    assert_eq!(store.hold_all(1, &[longer], AGES), [Err(why)]);
}

/// Check that what is no regular file is refused, and that nothing waits for a
/// FIFO's writer; and that a file of /proc, which claims to be empty, is read no
/// further than its first bytes.
#[test]
fn no_regular_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let open = |path| {
        let mut options = File::options();
        options.read(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap()
    };
    let (maps, _kernel) = super::kernel::kernel();
    let mut store = TableStore::new(maps, StoreLimits::default(), None).unwrap();
    for (path, why) in [
        (path.as_path(), ConvertError::NotRegular),
        (directory.path(), ConvertError::NotRegular),
        ("/dev/zero".as_ref(), ConvertError::NotRegular),
        ("/proc/self/maps".as_ref(), ConvertError::NotElf),
        ("/proc/self/mem".as_ref(), ConvertError::Read(std::io::ErrorKind::Other)),
    ] {
        let file = open(path);
        let found = convert(&file, LIMITS).unwrap_err();
        // Nothing is mapped at address 0: EIO.
        let is_it = found == why
            || matches!((&found, &why), (ConvertError::Read(_), ConvertError::Read(_)));
        assert!(is_it, "{}: {found}", path.display());
        let source = TableSource::File(FileIdentity::of(&file).unwrap(), Arc::new(file));
        assert_eq!(store.hold_all(1, &[source], AGES), [Err(NoTable::Convert(found))]);
    }
}
