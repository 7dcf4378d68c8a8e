//! libbpf-tools' memleak, as Debian builds it.

use std::env;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::process::Tool;
use super::{Attached, MEMLEAK, Options, Tracer, Way, allocator, first_line};
use crate::child::in_path;

/// Names the directory that Debian's packages were unpacked to, with a C library of
/// their own; `cargo xtask bench` sets it.
const VARIABLE: &str = "LEAKD_BENCH_PEERS";
/// memleak's name in Debian's libbpf-tools.
const PROGRAM: &str = "memleak-libbpf";
/// The loader of the C library, and the library's directory.
const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// libbpf-tools' memleak.
#[derive(Debug)]
pub struct Memleak {
    /// The command and its first arguments.
    words: Option<Vec<PathBuf>>,
}

impl Memleak {
    /// Looks where `cargo xtask bench` has put it, then in PATH.
    pub fn find() -> Self {
        let words = env::var_os(VARIABLE)
            .and_then(|root| unpacked(Path::new(&root)))
            .or_else(|| in_path(PROGRAM).map(|path| vec![path]));
        Self { words }
    }

    fn command(&self) -> Option<Command> {
        let (first, rest) = self.words.as_ref()?.split_first()?;
        let mut command = Command::new(first);
        command.args(rest);
        Some(command)
    }
}

fn unpacked(root: &Path) -> Option<Vec<PathBuf>> {
    let program = root.join("usr/sbin").join(PROGRAM);
    let loader = root.join(LOADER);
    (program.is_file() && loader.exists())
        .then(|| vec![loader, "--library-path".into(), root.join(LIBRARIES), program])
}

impl Tracer for Memleak {
    fn name(&self) -> &'static str {
        MEMLEAK
    }

    fn about(&self) -> &'static str {
        "memleak of libbpf-tools: memleak -p PID"
    }

    fn version(&self) -> Result<String, String> {
        let missing = || format!("{PROGRAM} (Debian's libbpf-tools) is not there");
        let mut command = self.command().ok_or_else(missing)?;
        first_line(command.arg("--version").stdin(Stdio::null()))
    }

    fn way(&self) -> Way {
        Way::Attach
    }

    fn attach(&mut self, pid: u32, options: &Options) -> Result<Box<dyn Attached>> {
        let mut command = self.command().context("it is not there")?;
        // A report every hour: none but the one at its end. All call sites of it.
        command.args(["-p", &pid.to_string(), "-T", "100000", "3600"]);
        // It looks at the C library, unless it is told otherwise.
        let allocator = allocator(pid)?;
        if !allocator.to_string_lossy().contains("/libc.so") {
            command.arg("--obj").arg(&allocator);
        }
        let report = File::create(&options.report)?;
        command.stdin(Stdio::null()).stdout(report).stderr(Stdio::null());
        let mut tool = Tool::start(MEMLEAK, &mut command)?;
        // With another library it may miss functions there: mmap, for one.
        let name = allocator.file_name().unwrap_or_default().to_string_lossy().into_owned();
        tool.wait_for_probes().with_context(|| format!("it cannot trace {name}"))?;
        Ok(Box::new(tool))
    }
}
