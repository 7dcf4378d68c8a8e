//! `swallow.so`: plants leaks and counts them (`tests/programs/swallow.c`).

use crate::support::programs::program;
use std::{fs::File, ops::RangeInclusive, os::unix::fs::FileExt, process::Command};

/// The truth that a swallowing process shares with us.
pub struct Swallow(tempfile::NamedTempFile);

impl Swallow {
    /// Has the command swallow one of `every` frees of blocks of these usable
    /// sizes, as soon as it is armed.
    pub fn planted_in(command: &mut Command, usable: RangeInclusive<usize>, every: u32) -> Self {
        let file = tempfile::NamedTempFile::new().expect("cannot make a file");
        file.as_file().write_all_at(&[0; 32], 0).expect("cannot write");
        // Before another library that is preloaded: that one gets the frees
        // that are passed on.
        let others = command.get_envs().find(|(name, _)| *name == "LD_PRELOAD");
        let others = others.and_then(|(_, value)| value).unwrap_or_default().to_owned();
        let mut preload = program("swallow.so").into_os_string();
        preload.push(" ");
        preload.push(others);
        command
            .env("LD_PRELOAD", preload)
            .env("SWALLOW_FILE", file.path())
            .env("SWALLOW_MIN", usable.start().to_string())
            .env("SWALLOW_MAX", usable.end().to_string())
            .env("SWALLOW_EVERY", every.to_string());
        Self(file)
    }

    fn file(&self) -> &File {
        self.0.as_file()
    }

    /// Begins or ends the swallowing.
    pub fn arm(&self, armed: bool) {
        let word = u64::from(armed).to_ne_bytes();
        self.file().write_all_at(&word, 0).expect("cannot write");
    }

    /// Blocks swallowed so far.
    pub fn blocks(&self) -> u64 {
        let mut word = [0; 8];
        self.file().read_exact_at(&mut word, 8).expect("cannot read");
        u64::from_ne_bytes(word)
    }
}
