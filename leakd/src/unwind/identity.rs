//! Which file is it?

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;

use crate::unwind::image;

/// Tells files apart, and versions of one file. The time stamp is the one that
/// its owner cannot set (ctime).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileIdentity {
    /// Device number (st_dev).
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Last change of content or attributes, nanoseconds since 1970.
    pub changed: i128,
    /// Size in bytes.
    pub size: u64,
    /// GNU build id, where the file has one. It tells versions apart that were
    /// written within one tick of the file system's clock.
    pub build_id: Option<Vec<u8>>,
}

impl FileIdentity {
    /// Asks an open file. Reads its headers for the build id.
    pub fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let build_id = if metadata.is_file() { image::build_id(file) } else { None };
        Ok(Self { build_id, ..Self::stamp(&metadata) })
    }

    /// The identity without the build id.
    pub(crate) fn stamp(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            changed: i128::from(metadata.ctime()) * 1_000_000_000
                + i128::from(metadata.ctime_nsec()),
            size: metadata.size(),
            build_id: None,
        }
    }

    /// Whether all but the build id agree.
    pub(crate) fn same_stamp(&self, other: &Self) -> bool {
        (self.device, self.inode, self.changed, self.size)
            == (other.device, other.inode, other.changed, other.size)
    }
}
