//! A file of /proc that is read again and again.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A file that stays open.
#[derive(Debug)]
pub(super) struct Source {
    path: &'static str,
    file: Option<File>,
    buffer: Vec<u8>,
    most: usize,
    error: Option<String>,
}

impl Source {
    /// Of the file, `most` bytes are read.
    pub(super) fn new(path: &'static str, most: usize) -> Self {
        Self { path, file: None, buffer: Vec::new(), most, error: None }
    }

    /// What the file says now; `None`: see [`Self::error`].
    pub(super) fn read(&mut self) -> Option<&[u8]> {
        match self.fill() {
            Ok(length) => {
                self.error = None;
                Some(&self.buffer[..length])
            }
            Err(error) => {
                self.error = Some(format!("cannot read {}: {error}", self.path));
                self.file = None;
                None
            }
        }
    }

    /// Why the last read failed.
    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    fn fill(&mut self) -> io::Result<usize> {
        const PIECE: usize = 16 << 10;
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::open(self.path)?),
        };
        let mut length = 0;
        while length < self.most {
            if self.buffer.len() < length + PIECE {
                self.buffer.resize(length + PIECE, 0);
            }
            match file.read_at(&mut self.buffer[length..], length as u64) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(length.min(self.most))
    }
}
