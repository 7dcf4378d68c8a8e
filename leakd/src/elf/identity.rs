//! Which file is it, and in which state?

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;

use super::BuildId;

/// Tells files apart, and states of one file: what was made from a file holds
/// as long as this is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
    /// `st_ctime` in nanoseconds since 1970 (modulo 2^64): the last change of content or
    /// attributes. Its owner cannot set it.
    pub changed_ns: i64,
    /// `st_mtime` in nanoseconds since 1970: the last change of content, unless
    /// its owner says otherwise.
    pub modified_ns: i64,
    /// `st_size` in bytes.
    pub size: u64,
    /// GNU build id, where the file has one. It tells versions apart that were
    /// written within one tick of the file system's clock.
    pub build_id: Option<BuildId>,
}

impl FileIdentity {
    /// The identity of an open file. Of a regular one it reads the headers, for
    /// the build id.
    ///
    /// # Errors
    /// Those of fstat(2).
    pub fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let build_id = if metadata.is_file() { BuildId::of(file) } else { None };
        Ok(Self { build_id, ..Self::without_build_id(&metadata) })
    }

    /// All that fstat(2) tells.
    pub fn without_build_id(metadata: &Metadata) -> Self {
        // Wrapping: file systems of others may claim any time.
        let nanoseconds =
            |seconds: i64, rest: i64| seconds.wrapping_mul(1_000_000_000).wrapping_add(rest);
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
            modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            size: metadata.size(),
            build_id: None,
        }
    }

    /// Whether this is the same file and nothing speaks for another content: it
    /// may have other attributes by now, or other names, or none.
    pub fn has_content_of(&self, other: &Self) -> bool {
        *self == Self { changed_ns: self.changed_ns, ..*other }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Check that a file keeps its identity while nobody touches it; that what
    /// changes its attributes or takes its name leaves it its content; and that
    /// what is written to it does not.
    #[test]
    fn states_of_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("library.so");
        std::fs::copy("/bin/true", &path).unwrap();
        let mut file = File::options().append(true).read(true).open(&path).unwrap();
        let identity = || FileIdentity::of(&file).unwrap();
        let first = identity();
        assert!(first.build_id.is_some(), "Debian's programs have build ids");
        assert_eq!(identity(), first);
        // The clock of the file system has ticks.
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::remove_file(&path).unwrap();
        let deleted = identity();
        assert_ne!(deleted, first);
        assert!(deleted.has_content_of(&first) && first.has_content_of(&deleted));
        file.write_all(b"more").unwrap();
        let longer = FileIdentity::of(&file).unwrap();
        assert!(!longer.has_content_of(&first));
        // Of the same length, at the same time: the build id tells.
        let other = FileIdentity { build_id: None, ..first };
        assert!(!other.has_content_of(&first));
        let other = FileIdentity { inode: 1, ..first };
        assert!(!other.has_content_of(&first));
    }
}
