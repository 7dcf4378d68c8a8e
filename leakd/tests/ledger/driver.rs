//! The driver process, from the test's side.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::operation::{Kind, Operation, THREADS};
use super::programs;

/// Operations that the shared file has room for.
pub const OPERATIONS: usize = 16384;

// The layout of `struct shared` in driver.c.
const WORD: u64 = 8;
const REPEAT: u64 = 2 * WORD;
const SITES: u64 = 3 * WORD;
const OPERATIONS_BEGIN: u64 = SITES + 16 * WORD;
const OPERATION_BYTES: u64 = 6 * WORD;
const OUTCOMES_BEGIN: u64 = OPERATIONS_BEGIN + OPERATIONS as u64 * OPERATION_BYTES;
const OUTCOME_BYTES: u64 = 3 * WORD;
const FILE_BYTES: u64 = OUTCOMES_BEGIN + OPERATIONS as u64 * OUTCOME_BYTES;

/// What came of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the call returned.
    pub address: u64,
    /// The block that is there after it; 0: none.
    pub live: u64,
}

/// A process that does operations on demand.
#[derive(Debug)]
pub struct Driver {
    child: Child,
    file: File,
    _folder: tempfile::TempDir,
    sites: Vec<(u64, Kind)>,
}

impl Driver {
    /// Starts a driver, with these libraries preloaded.
    pub fn start(preload: &[&Path]) -> Self {
        let program = programs::compile("driver.c", &[]);
        let folder = tempfile::tempdir().expect("a folder for the shared file");
        let path = folder.path().join("operations");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .expect("cannot make the shared file");
        file.set_len(FILE_BYTES).expect("cannot size the shared file");
        let mut command = Command::new(program);
        command.arg(&path).arg(THREADS.to_string()).env_clear();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        if !preload.is_empty() {
            let list: Vec<_> = preload.iter().map(|path| path.display().to_string()).collect();
            command.env("LD_PRELOAD", list.join(":"));
        }
        let child = command.spawn().expect("cannot start the driver");
        let mut driver = Self { child, file, _folder: folder, sites: Vec::new() };
        driver.answer();
        driver.sites = Kind::ALL
            .into_iter()
            .enumerate()
            .map(|(number, kind)| (driver.words(SITES + number as u64 * WORD, 1)[0], kind))
            .collect();
        driver.sites.sort_unstable();
        driver
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The call site that a stack, innermost frame first, comes from. A stack
    /// that leads through none of them begins in the C library's strdup and
    /// could not be walked any further.
    pub fn kind(&self, stack: &[u64]) -> Kind {
        stack.iter().find_map(|address| self.kind_at(*address)).unwrap_or(Kind::Strdup)
    }

    fn kind_at(&self, address: u64) -> Option<Kind> {
        /// No call site is longer.
        const SITE_BYTES: u64 = 96;
        let index = self.sites.partition_point(|(begin, _)| *begin <= address);
        let (begin, kind) = self.sites[index.checked_sub(1)?];
        (address - begin < SITE_BYTES).then_some(kind)
    }

    /// Does these operations, which get the numbers from `first` on.
    pub fn run(&mut self, first: usize, operations: &[Operation]) -> Vec<Outcome> {
        self.begin(first, operations);
        self.finish(first, operations.len())
    }

    /// Starts doing these operations.
    pub fn begin(&mut self, first: usize, operations: &[Operation]) {
        let end = first + operations.len();
        assert!(end <= OPERATIONS, "too many operations: {end}");
        let number = |operation: Option<usize>| operation.map_or(0, |number| number as u64 + 1);
        let told: Vec<u8> = operations
            .iter()
            .flat_map(|operation| {
                let Operation { kind, thread, size, extra, source, after } = *operation;
                [kind as u64, thread, size, extra, number(source), number(after)]
            })
            .flat_map(u64::to_ne_bytes)
            .collect();
        let blank = vec![0u8; operations.len() * OUTCOME_BYTES as usize];
        self.write(OPERATIONS_BEGIN + first as u64 * OPERATION_BYTES, &told);
        self.write(OUTCOMES_BEGIN + first as u64 * OUTCOME_BYTES, &blank);
        self.write(0, &[(first as u64).to_ne_bytes(), (end as u64).to_ne_bytes()].concat());
        let order = self.child.stdin.as_mut().expect("stdin is a pipe").write_all(b"g");
        order.expect("the driver has ended");
    }

    /// Does these operations over and over, until they are finished. They must
    /// leave no blocks, and not wait for one another.
    pub fn begin_to_repeat(&mut self, first: usize, operations: &[Operation]) {
        self.write(REPEAT, &1u64.to_ne_bytes());
        self.begin(first, operations);
    }

    /// Waits until `count` operations, numbered from `first` on, are done.
    pub fn finish(&mut self, first: usize, count: usize) -> Vec<Outcome> {
        self.write(REPEAT, &0u64.to_ne_bytes());
        self.answer();
        self.words(OUTCOMES_BEGIN + first as u64 * OUTCOME_BYTES, 3 * count)
            .chunks_exact(3)
            .map(|words| {
                assert_eq!(words[2], 1, "the driver left an operation out");
                Outcome { address: words[0], live: words[1] }
            })
            .collect()
    }

    fn answer(&mut self) {
        let mut byte = [0u8];
        let answer = self.child.stdout.as_mut().expect("stdout is a pipe").read_exact(&mut byte);
        if let Err(error) = answer {
            let status = self.child.wait().expect("the driver can be waited for");
            panic!("the driver does not answer ({error}), it ended with {status}");
        }
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, at).expect("cannot write the shared file");
    }

    fn words(&self, at: u64, count: usize) -> Vec<u64> {
        let mut bytes = vec![0u8; 8 * count];
        self.file.read_exact_at(&mut bytes, at).expect("cannot read the shared file");
        bytes
            .chunks_exact(8)
            .map(|word| u64::from_ne_bytes(word.try_into().expect("8 bytes")))
            .collect()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
