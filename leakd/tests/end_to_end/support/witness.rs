//! What `witness.so` saw of a program: the truth that does not come from
//! leakd (see `tests/programs/witness.c`).

use super::{
    mappings::{Mapping, executable_mappings},
    programs::program,
    report::{Frame, Site, number},
};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// One frame, by glibc's unwinder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessFrame {
    /// The module's file.
    pub module: PathBuf,
    /// The return address as an offset in that file.
    pub offset: u64,
    /// The return address as the ELF file counts (its virtual address).
    pub in_file: u64,
    /// The dynamic symbol it is in, or "".
    pub function: String,
}

/// One stack that allocated.
#[derive(Clone, Debug)]
pub struct WitnessSite {
    /// Blocks ever allocated there.
    pub allocated_blocks: u64,
    /// Their bytes.
    pub allocated_bytes: u64,
    /// Blocks outstanding at exit.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Innermost frame first: the first is in the caller of the allocator.
    pub stack: Vec<WitnessFrame>,
}

/// What one process did.
#[derive(Clone, Debug)]
pub struct Testimony {
    /// Blocks allocated; a realloc is one of these and one of the frees.
    pub allocations: u64,
    /// Blocks freed.
    pub frees: u64,
    /// Blocks outstanding at exit.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// By stack.
    pub sites: Vec<WitnessSite>,
}

/// A folder where the processes of one command leave their testimonies.
#[derive(Debug)]
pub struct Witness(tempfile::TempDir);

impl Witness {
    /// Puts the witness into the command; it takes stacks of blocks of these
    /// usable sizes.
    pub fn called_by(command: &mut Command, sizes: std::ops::RangeInclusive<usize>) -> Self {
        let folder = tempfile::tempdir().expect("cannot make a folder");
        command
            .env("LD_PRELOAD", program("witness.so"))
            .env("WITNESS_OUT", folder.path().join("testimony"))
            .env("WITNESS_MIN", sizes.start().to_string())
            .env("WITNESS_MAX", sizes.end().to_string());
        Self(folder)
    }

    /// What the process said, which must have ended by exit().
    pub fn testimony(&self, pid: i32) -> Testimony {
        let path = self.0.path().join(format!("testimony.{pid}"));
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("process {pid} left no testimony: {error}"));
        let json: Value = serde_json::from_str(&text).expect("the witness writes JSON");
        assert_eq!(json["overflows"], 0, "the witness's table was too small");
        let count = |value: &Value, name: &str| value[name].as_u64().expect("a count");
        Testimony {
            allocations: count(&json, "allocations"),
            frees: count(&json, "frees"),
            blocks: count(&json, "blocks"),
            bytes: count(&json, "bytes"),
            sites: json["sites"]
                .as_array()
                .expect("an array")
                .iter()
                .map(|site| WitnessSite {
                    allocated_blocks: count(site, "allocated_blocks"),
                    allocated_bytes: count(site, "allocated_bytes"),
                    blocks: count(site, "blocks"),
                    bytes: count(site, "bytes"),
                    stack: site["stack"].as_array().expect("an array").iter().map(frame).collect(),
                })
                .collect(),
        }
    }
}

fn frame(json: &Value) -> WitnessFrame {
    let text = |index: usize| json[index].as_str().expect("a string");
    WitnessFrame {
        module: PathBuf::from(text(0)),
        offset: number(text(1)).expect("hex"),
        in_file: number(text(2)).expect("hex"),
        function: text(3).to_owned(),
    }
}

impl WitnessFrame {
    /// The function by the file's full symbol table, also when it is static.
    pub fn function_by_addr2line(&self) -> String {
        let output = Command::new("addr2line")
            .arg("-f")
            .arg("-e")
            .arg(&self.module)
            .arg(format!("{:#x}", self.in_file - 1))
            .output()
            .expect("cannot start addr2line (package binutils)");
        String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned()
    }

    /// Whether a frame of a report is at this place. The report may give an
    /// address in the process or in the ELF file, and the return address or
    /// the call before it.
    fn is(&self, frame: Frame<'_>, mappings: &[Mapping]) -> bool {
        let names = |path: &Path| path.file_name().map(ToOwned::to_owned);
        let canonical = std::fs::canonicalize(&self.module).unwrap_or(self.module.clone());
        let module = frame.0["module"].as_str().map(Path::new).and_then(names);
        if module != names(&canonical) && module != names(&self.module) {
            return false;
        }
        let address = frame.address();
        (0..=1).any(|less| {
            let address = address + less;
            let mapped = mappings
                .iter()
                .find(|mapping| (mapping.start..mapping.end).contains(&address))
                .map(|mapping| address - mapping.start + mapping.offset);
            mapped == Some(self.offset) || address == self.in_file || address == self.offset
        })
    }
}

impl WitnessSite {
    /// Checks that a site of a report has this stack: the same places, in
    /// this order, to a depth of `depth`, with the names of the dynamic
    /// symbols where there are any. The process must still live.
    pub fn assert_same(&self, site: Site<'_>, pid: i32, depth: usize) {
        let mappings = executable_mappings(pid);
        let physical: Vec<_> = site.stack().filter(|frame| frame.0["inlined"] == false).collect();
        let difference = || format!("expected {:#?}, reported {:#}", self.stack, site.0);
        // The report may or may not begin with the allocator itself.
        let begin = physical
            .iter()
            .take(2)
            .position(|frame| self.stack[0].is(*frame, &mappings))
            .unwrap_or_else(|| panic!("another call site: {}", difference()));
        for (level, expected) in self.stack.iter().take(depth).enumerate() {
            let frame = physical
                .get(begin + level)
                .unwrap_or_else(|| panic!("the stack ends at {level}: {}", difference()));
            assert!(expected.is(*frame, &mappings), "frame {level}: {}", difference());
            if !expected.function.is_empty() {
                assert_eq!(
                    frame.function(),
                    Some(expected.function.as_str()),
                    "frame {level}: {}",
                    difference()
                );
            }
        }
    }
}
