//! Reading ranges of a file by pread(2), within limits.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::ElfError;
use crate::thread_time;

/// How much processor time one operation on a file may take.
const TIME_LIMIT: Duration = Duration::from_secs(1);

/// Bytes that are read at a time from long tables; a multiple of the sizes of
/// a symbol and of a relocation (24).
pub(super) const CHUNK: u64 = 24 * 21_846; // about half a MiB

/// When the operation under way must have ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(thread_time::Deadline);

impl Deadline {
    pub(super) fn start() -> Self {
        Self(thread_time::Deadline::after(TIME_LIMIT))
    }

    pub(super) fn check(self) -> Result<(), ElfError> {
        if self.0.has_passed() { Err(ElfError::Deadline(TIME_LIMIT)) } else { Ok(()) }
    }
}

/// Reads `length` bytes at `offset`. The caller has checked `length` against
/// a limit; here it is checked against the file before memory is taken.
pub(super) fn read(file: &File, offset: u64, length: u64) -> Result<Vec<u8>, ElfError> {
    let end = offset.checked_add(length).ok_or(ElfError::Damaged("an offset overflows"))?;
    if end > file.metadata()?.len() {
        return Err(ElfError::Damaged("a table reaches past the end of the file"));
    }
    let length = usize::try_from(length).map_err(|_| ElfError::Damaged("a size overflows"))?;
    let mut bytes = vec![0; length];
    match file.read_exact_at(&mut bytes, offset) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Err(ElfError::Damaged("the file was cut short while it was read"))
        }
        Err(error) => Err(error.into()),
    }
}

/// Checks that `count` of `what` is within `limit`.
pub(super) fn limited(what: &'static str, count: u64, limit: u64) -> Result<u64, ElfError> {
    if count > limit { Err(ElfError::TooLarge { what, count, limit }) } else { Ok(count) }
}

/// The little-endian u16 at `at`; 0 past the end, which callers rule out by
/// the length they read.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    array_at(bytes, at).map_or(0, u16::from_le_bytes)
}

/// The little-endian u32 at `at`, likewise.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    array_at(bytes, at).map_or(0, u32::from_le_bytes)
}

/// The little-endian u64 at `at`, likewise.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    array_at(bytes, at).map_or(0, u64::from_le_bytes)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}
