//! Tables on disk, one file for each executable.
//!
//! Little-endian: a header of 64 bytes (magic, version, checksum and length of
//! what follows), then the identity of the file that the table was made from,
//! then the table. What does not check out is as good as not there, and is
//! written anew. The directory belongs to the user that leakd runs as, and to
//! nobody else: the checksum is against damage, not against forgery.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use leakd_common::unwind::{PAGE_BITS, Rule};

use crate::elf::{BuildId, FileIdentity};
use crate::unwind::Table;
use crate::unwind::image::Segment;
use crate::unwind::table::{MAX_PAGES, MAX_RULES, TableStats};

const MAGIC: [u8; 8] = *b"leakdtbl";
/// To be raised whenever the format or the conversion changes.
const VERSION: u32 = 2;
const HEADER_BYTES: usize = 64;
/// Where the directory usually is.
pub const DIRECTORY: &str = "/var/cache/leakd";
/// What the directory may usually grow to, in bytes.
pub const MAX_BYTES: u64 = 256 << 20;
/// No table is larger: the limit on rows keeps them well below.
const MAX_FILE_BYTES: u64 = 128 << 20;
const SUFFIX: &str = "table";

/// A directory of tables.
#[derive(Debug)]
pub struct DiskCache {
    directory: PathBuf,
    limit: u64,
    /// Bytes in the directory, as far as is known.
    used: Mutex<u64>,
    /// Files written by this process: each has a name of its own meanwhile.
    written: AtomicU64,
}

impl DiskCache {
    /// Opens the directory, or makes it with mode 0700. Fails if it belongs to
    /// somebody else or others may write to it; the caller then works without.
    pub fn open(directory: &Path, limit: u64) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let metadata = fs::symlink_metadata(directory)?;
        let refuse = |why| {
            let path = directory.display();
            Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{path} {why}")))
        };
        if !metadata.is_dir() {
            return refuse("is not a directory");
        }
        // SAFETY: only asks for a number.
        if metadata.uid() != unsafe { libc::geteuid() } || metadata.mode() & 0o077 != 0 {
            return refuse("must belong to the user that leakd runs as, with mode 0700");
        }
        let (used, written) = (Mutex::new(0), AtomicU64::new(0));
        let cache = Self { directory: directory.into(), limit, used, written };
        cache.remove_abandoned();
        let used = cache.files()?.iter().map(|file| file.bytes).sum();
        cache.account(used, 0);
        Ok(cache)
    }

    /// The table of a file; `None` where there is none, or a damaged one.
    pub fn load(&self, identity: &FileIdentity) -> Option<Table> {
        let mut options = OpenOptions::new();
        let options = options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = options.open(self.path(identity)).ok()?;
        let metadata = file.metadata().ok()?;
        let size = metadata.len();
        if !metadata.is_file() || size > MAX_FILE_BYTES {
            return None;
        }
        let mut bytes = Vec::with_capacity(size as usize);
        (&file).take(size).read_to_end(&mut bytes).ok()?;
        let table = decode(&bytes, identity)?;
        // So that the least recently used goes first.
        let _ = file.set_modified(SystemTime::now());
        Some(table)
    }

    /// Keeps a table. What goes wrong here costs time later on, and no more.
    pub fn store(&self, identity: &FileIdentity, table: &Table) {
        let bytes = encode(identity, table);
        if bytes.len() as u64 > self.limit.min(MAX_FILE_BYTES) {
            return;
        }
        let path = self.path(identity);
        let replaced = fs::symlink_metadata(&path).map_or(0, |metadata| metadata.len());
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let temporary = self.directory.join(format!("new-{}-{number}", std::process::id()));
        match write(&temporary, &path, &bytes) {
            Ok(()) => self.account(bytes.len() as u64, replaced),
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "cannot keep an unwind table");
                let _ = fs::remove_file(temporary);
            }
        }
    }

    /// Removes what those left behind that were killed while they wrote.
    fn remove_abandoned(&self) {
        const ABANDONED_AFTER: Duration = Duration::from_secs(600);
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let is_temporary = entry.file_name().as_encoded_bytes().starts_with(b"new-");
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            let age = modified.ok().and_then(|modified| modified.elapsed().ok());
            if is_temporary && age.is_some_and(|age| age > ABANDONED_AFTER) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// One name for each inode: a new version takes the old one's place.
    fn path(&self, identity: &FileIdentity) -> PathBuf {
        let FileIdentity { device, inode, .. } = identity;
        self.directory.join(format!("{device:x}-{inode:x}.{SUFFIX}"))
    }

    fn files(&self) -> io::Result<Vec<CachedFile>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)?.flatten() {
            let (path, metadata) = (entry.path(), entry.metadata());
            if let Ok(metadata) = metadata
                && metadata.is_file()
                && path.extension().is_some_and(|suffix| suffix == SUFFIX)
            {
                let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                files.push(CachedFile { used, bytes: metadata.len(), path });
            }
        }
        Ok(files)
    }

    /// So many bytes have come and gone. Where they are too many, deletes what
    /// was not used for longest, down to three quarters.
    fn account(&self, come: u64, gone: u64) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        *used = (*used + come).saturating_sub(gone);
        if *used <= self.limit {
            return;
        }
        let Ok(mut files) = self.files() else { return };
        files.sort_unstable();
        *used = files.iter().map(|file| file.bytes).sum();
        for file in files {
            if *used <= self.limit / 4 * 3 {
                break;
            }
            if fs::remove_file(&file.path).is_ok() {
                *used -= file.bytes;
            }
        }
    }
}

/// Under another name first, so that nobody ever reads half a table.
fn write(temporary: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true).mode(0o600);
    let _ = fs::remove_file(temporary);
    let mut file = options.open(temporary)?;
    file.write_all(bytes)?;
    drop(file);
    fs::rename(temporary, path)
}

/// Ordered by the time of its last use.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct CachedFile {
    used: SystemTime,
    bytes: u64,
    path: PathBuf,
}

/// Not cryptographic: each word is multiplied in, and high bits folded down.
fn checksum(bytes: &[u8]) -> u64 {
    let mix = |sum: u64, word: u64| {
        let mixed = (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ mixed >> 29
    };
    let (words, rest) = bytes.as_chunks::<8>();
    let sum =
        words.iter().fold(bytes.len() as u64, |sum, word| mix(sum, u64::from_le_bytes(*word)));
    rest.iter().fold(sum, |sum, byte| mix(sum, u64::from(*byte)))
}

fn encode(identity: &FileIdentity, table: &Table) -> Vec<u8> {
    let size = 4 * (table.directory.len() + table.rows.len()) + 8 * table.rules.len();
    let mut bytes = Vec::with_capacity(HEADER_BYTES + size + 4096);
    bytes.resize(HEADER_BYTES, 0);
    encode_identity(identity, &mut bytes);
    let stats = &table.stats;
    let mut counts = vec![table.first_page, table.pages];
    counts.extend([stats.entries, stats.bad_entries, stats.outside, stats.overlapping]);
    counts.push(stats.unsupported_rows);
    counts.extend([table.segments.len(), table.rules.len(), table.rows.len()].map(|n| n as u32));
    bytes.extend(counts.iter().flat_map(|word| word.to_le_bytes()));
    for segment in &table.segments {
        let Segment { file_offset, file_size, address, memory_size, executable } = *segment;
        let words = [file_offset, file_size, address, memory_size, u64::from(executable)];
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    }
    bytes.extend(table.rules.iter().flat_map(|rule| rule.0.to_le_bytes()));
    bytes.extend(table.directory.iter().flat_map(|word| word.to_le_bytes()));
    bytes.extend(table.rows.iter().flat_map(|word| word.to_le_bytes()));

    let (header, body) = bytes.split_at_mut(HEADER_BYTES);
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[16..24].copy_from_slice(&(body.len() as u64).to_le_bytes());
    header[24..32].copy_from_slice(&checksum(body).to_le_bytes());
    bytes
}

fn encode_identity(identity: &FileIdentity, bytes: &mut Vec<u8>) {
    let FileIdentity { device, inode, changed_ns, modified_ns, size, build_id } = identity;
    bytes.extend(device.to_le_bytes());
    bytes.extend(inode.to_le_bytes());
    bytes.extend(changed_ns.to_le_bytes());
    bytes.extend(modified_ns.to_le_bytes());
    bytes.extend(size.to_le_bytes());
    // 0: none.
    let build_id = build_id.as_ref().map_or(&[][..], BuildId::bytes);
    bytes.extend((build_id.len() as u32).to_le_bytes());
    bytes.extend(build_id);
}

fn decode(bytes: &[u8], identity: &FileIdentity) -> Option<Table> {
    let (header, body) = bytes.split_at_checked(HEADER_BYTES)?;
    let word = |at: usize| header.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    if header[..8] != MAGIC
        || header[8..12] != VERSION.to_le_bytes()
        || word(16)? != body.len() as u64
        || word(24)? != checksum(body)
    {
        return None;
    }
    let mut wanted = Vec::new();
    encode_identity(identity, &mut wanted);
    let mut rest = Rest(body.strip_prefix(&wanted[..])?);
    let [first_page, pages] = rest.words()?;
    let [entries, bad_entries, outside, overlapping, unsupported_rows] = rest.words()?;
    let [segment_count, rule_count, row_count] = rest.words()?;
    let mut segments = Vec::new();
    for _ in 0..segment_count {
        let [file_offset, file_size, address, memory_size, executable] = rest.long_words()?;
        let executable = executable != 0;
        segments.push(Segment { file_offset, file_size, address, memory_size, executable });
    }
    if u64::from(pages) > MAX_PAGES || rule_count as usize > MAX_RULES {
        return None;
    }
    let rules = rest.take(8 * rule_count as usize)?.as_chunks().0;
    let directory = rest.take(4 * (pages as usize + 1))?.as_chunks().0;
    let rows = rest.take(row_count as usize * 4)?.as_chunks().0;
    let table = Table {
        first_page,
        pages,
        directory: directory.iter().map(|word| u32::from_le_bytes(*word)).collect(),
        rows: rows.iter().map(|word| u32::from_le_bytes(*word)).collect(),
        rules: rules.iter().map(|word| Rule(u64::from_le_bytes(*word))).collect(),
        segments,
        stats: TableStats { entries, bad_entries, outside, overlapping, unsupported_rows },
    };
    (rest.0.is_empty() && is_consistent(&table)).then_some(table)
}

fn is_consistent(table: &Table) -> bool {
    table.directory.is_sorted()
        && table.directory.last() == Some(&(table.rows.len() as u32))
        && table.rows.iter().all(|row| ((row >> PAGE_BITS) as usize) < table.rules.len())
}

/// What has not been read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn words<const N: usize>(&mut self) -> Option<[u32; N]> {
        let words = self.take(4 * N)?.as_chunks().0;
        Some(std::array::from_fn(|at| u32::from_le_bytes(words[at])))
    }

    fn long_words<const N: usize>(&mut self) -> Option<[u64; N]> {
        let words = self.take(8 * N)?.as_chunks().0;
        Some(std::array::from_fn(|at| u64::from_le_bytes(words[at])))
    }
}

/// Opens the usual directory; `None`, with the reason in the log, where that is
/// not possible.
pub fn open_default() -> Option<DiskCache> {
    match DiskCache::open(Path::new(DIRECTORY), MAX_BYTES) {
        Ok(cache) => Some(cache),
        Err(error) => {
            tracing::info!(%error, "unwind tables are not kept on disk");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;
    use crate::unwind::{Limits, convert};

    fn sample() -> (FileIdentity, Table) {
        let file = File::open("/bin/true").unwrap();
        (FileIdentity::of(&file).unwrap(), convert(&file, Limits::default()).unwrap())
    }

    fn cache(limit: u64) -> (tempfile::TempDir, DiskCache) {
        let parent = tempfile::tempdir().unwrap();
        let cache = DiskCache::open(&parent.path().join("cache"), limit).unwrap();
        (parent, cache)
    }

    /// Check that a table comes back as it was, for that version of the file
    /// alone, and that nobody else can read it.
    #[test]
    fn round_trip() {
        let (_parent, cache) = cache(MAX_BYTES);
        let (identity, table) = sample();
        assert_eq!(cache.load(&identity), None);
        cache.store(&identity, &table);
        assert_eq!(cache.load(&identity).as_ref(), Some(&table));
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&cache.directory), 0o700);
        assert_eq!(mode(&cache.path(&identity)), 0o600);
        for other in [
            FileIdentity { size: identity.size + 1, ..identity },
            FileIdentity { changed_ns: identity.changed_ns + 1, ..identity },
            FileIdentity { modified_ns: identity.modified_ns + 1, ..identity },
            FileIdentity { build_id: None, ..identity },
        ] {
            assert_eq!(cache.load(&other), None);
        }
        let newer = FileIdentity { changed_ns: identity.changed_ns + 1, ..identity };
        cache.store(&newer, &table);
        assert_eq!(cache.load(&newer), Some(table));
        assert_eq!(cache.load(&identity), None);
        assert_eq!(cache.files().unwrap().len(), 1);
        assert_eq!(*cache.used.lock().unwrap(), cache.files().unwrap()[0].bytes);
    }

    /// Check that every single damaged byte is noticed, and every length that a
    /// file can be cut to.
    #[test]
    fn damage() {
        let (identity, table) = sample();
        let good = encode(&identity, &table);
        assert_eq!(decode(&good, &identity).as_ref(), Some(&table));
        for at in (0..good.len()).filter(|at| !(12..16).contains(at) && !(32..64).contains(at)) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert_eq!(decode(&bad, &identity), None, "byte {at}");
        }
        for length in (0..good.len()).step_by(7) {
            assert_eq!(decode(&good[..length], &identity), None, "{length} bytes");
        }
    }

    proptest! {
        /// Check that contents made up behind a checksum that is right give a
        /// table that can be asked, or none.
        #[test]
        fn forged(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20)) {
            let (identity, table) = sample();
            let mut bytes = encode(&identity, &table);
            let length = bytes.len();
            for (at, value) in changes {
                bytes[HEADER_BYTES + at.index(length - HEADER_BYTES)] = value;
            }
            let sum = checksum(&bytes[HEADER_BYTES..]);
            bytes[24..32].copy_from_slice(&sum.to_le_bytes());
            if let Some(table) = decode(&bytes, &identity) {
                let first = u64::from(table.first_page) << PAGE_BITS;
                for address in (first..).step_by(1 << PAGE_BITS).take(table.pages as usize + 1) {
                    let _ = table.find(address);
                }
            }
        }
    }

    /// Check that the directory does not outgrow its limit, and that what was
    /// used last stays.
    #[test]
    fn limit() {
        let (identity, table) = sample();
        let size = encode(&identity, &table).len() as u64;
        let (_parent, cache) = cache(4 * size);
        let of = |inode| FileIdentity { inode, ..identity };
        for inode in 0..20 {
            cache.store(&of(inode), &table);
            let files = cache.files().unwrap();
            assert!(files.len() <= 4, "{inode}");
            assert_eq!(*cache.used.lock().unwrap(), files.len() as u64 * size);
            assert!(cache.load(&of(inode)).is_some());
        }
        let abandoned = cache.directory.join("new-1");
        let file = File::create(&abandoned).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
        let again = DiskCache::open(&cache.directory, size).unwrap();
        assert!(!abandoned.exists());
        assert!(*again.used.lock().unwrap() <= size);
    }

    /// Check that a directory that others can write to is refused, and that one
    /// that cannot be made is an error and no more.
    #[test]
    fn bad_directories() {
        let (parent, cache) = cache(MAX_BYTES);
        fs::set_permissions(&cache.directory, fs::Permissions::from_mode(0o777)).unwrap();
        let error = DiskCache::open(&cache.directory, MAX_BYTES).unwrap_err();
        assert!(error.to_string().contains("mode 0700"), "{error}");
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(&cache.directory, &link).unwrap();
        let error = DiskCache::open(&link, MAX_BYTES).unwrap_err();
        assert!(error.to_string().contains("not a directory"), "{error}");
        assert!(DiskCache::open(Path::new("/proc/leakd"), MAX_BYTES).is_err());
    }
}
