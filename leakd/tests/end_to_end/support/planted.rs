//! The usual scene: a program that leaks at a known rate in a known function,
//! `leakctl attach` for a while, and a comparison.

use crate::host::scaled;

use super::{
    invocation::Leakctl,
    probes::assert_nothing_left,
    process::{Process, Truth},
    report::{Report, Site},
};
use std::{process::Command, time::Duration};

/// Blocks that must have been leaked under the eyes of leakctl.
pub fn enough() -> u64 {
    scaled(300, 60)
}

/// What `--min-age` is set to: honest blocks live for a small part of it.
const MIN_AGE: &str = "1s";

/// A leak that was found.
#[derive(Debug)]
pub struct Found {
    /// The program, still running.
    pub program: Process,
    /// What leakctl reported.
    pub report: Report,
    /// What the program had leaked before the attach.
    pub before: Truth,
    /// What it had leaked when leakctl had ended.
    pub after: Truth,
}

/// Starts the command, attaches with these further arguments, waits until
/// enough is leaked and old enough, and reads the report.
pub fn watch(command: Command, arguments: &[&str]) -> Found {
    let mut program = Process::start_ready(command);
    let pid = program.pid();
    let before = program.truth();
    let mut all = vec!["--min-age", MIN_AGE];
    all.extend(arguments);
    let leakctl = Leakctl::attach(pid, &all);
    let attached = program.truth();
    program.wait_until_leaked(attached.blocks + enough());
    // For these to become older than MIN_AGE.
    std::thread::sleep(Duration::from_millis(1500));
    let report = leakctl.interrupt();
    let after = program.truth();
    assert_nothing_left(pid);
    Found { program, report, before, after }
}

impl Found {
    /// Checks that the first site is the leak, with numbers that fit what
    /// the program says of itself, and that the program ends in good health.
    pub fn assert_leak(&mut self, function: &str, size: u64) {
        let site = self.report.target(self.program.pid()).first_site(function);
        self.assert_numbers(site, size);
        self.program.end();
    }

    /// Checks a site's numbers against what the program says of itself.
    pub fn assert_numbers(&self, site: Site<'_>, size: u64) {
        let (blocks, bytes) = site.outstanding();
        let most = self.after.blocks - self.before.blocks;
        assert!(
            (enough()..=most).contains(&blocks),
            "{blocks} blocks are reported of {} to {most}: {}",
            enough(),
            site.0
        );
        assert_eq!(bytes, blocks * size, "each block has {size} bytes: {}", site.0);
        assert_eq!(site.number("freed_blocks"), 0, "none was ever freed: {}", site.0);
        assert!(site.number("oldest_age_ns") >= site.number("median_age_ns"));
        assert!(site.number("median_age_ns") > 0, "they are not new: {}", site.0);
    }
}

/// [`watch`] and [`Found::assert_leak`] in one.
pub fn assert_finds(program: &str, function: &str, size: u64) {
    let command = Command::new(super::programs::program(program));
    watch(command, &[]).assert_leak(function, size);
}
