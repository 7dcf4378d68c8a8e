//! The programs: compiled here, run, and ended with this process.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

/// The sources of all languages.
#[derive(Debug)]
pub struct Compiled {
    folder: TempDir,
}

/// Compilers with what a distribution uses, by language.
const COMPILERS: [(&str, &str, &str); 3] = [
    ("c", "cc -O2 -g -pthread", "behaviours.c"),
    ("c++", "c++ -O2 -g", "behaviours.cpp"),
    ("rust", "rustc -O -g --edition 2024", "behaviours.rs"),
];

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/behaviours")
}

impl Compiled {
    /// Compiles them.
    pub fn all() -> Result<Self> {
        let folder = TempDir::with_prefix("leakd-verdicts-")?;
        for (language, compiler, source) in COMPILERS {
            let mut words = compiler.split(' ');
            let status = Command::new(words.next().unwrap_or_default())
                .args(words)
                .arg("-o")
                .arg(folder.path().join(language))
                .arg(sources().join(source))
                .status()
                .with_context(|| compiler.to_owned())?;
            ensure!(status.success(), "{compiler} {source}: {status}");
        }
        Ok(Self { folder })
    }

    fn command(&self, language: &str) -> Command {
        if language == "python" {
            let mut command = Command::new("python3");
            command.arg(sources().join("behaviours.py"));
            return command;
        }
        Command::new(self.folder.path().join(language))
    }
}

/// A program that runs; killed when this is dropped.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Starts it and waits until it is ready.
    pub fn start(compiled: &Compiled, language: &str, name: &str) -> Result<Self> {
        let mut command = compiled.command(language);
        command.arg(name).stdin(Stdio::null()).stdout(Stdio::piped());
        // SAFETY: prctl is a plain system call and may be made between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let mut running = Self(command.spawn().with_context(|| name.to_owned())?);
        let output = running.0.stdout.take().context("no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        if !line.starts_with("ready ") {
            bail!("{language} {name} said {line:?}");
        }
        Ok(running)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
