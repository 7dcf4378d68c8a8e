//! Programs that tests compile.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A compiled program in a directory of its own, which goes with it.
pub(crate) struct TestProgram {
    directory: TempDir,
}

impl TestProgram {
    /// Compiles a source by `compiler`, whose input language follows from
    /// the source file's `extension` (c, cc or s).
    pub(crate) fn compile(compiler: &str, extension: &str, source: &str, flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let input = directory.path().join("source").with_extension(extension);
        std::fs::write(&input, source).unwrap();
        let output = Command::new(compiler)
            .args(flags)
            .arg("-o")
            .arg(directory.path().join("program"))
            .arg(&input)
            .output()
            .unwrap_or_else(|error| panic!("cannot run {compiler}: {error}; is it installed?"));
        let messages = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{compiler} {flags:?}: {messages}");
        Self { directory }
    }

    /// Compiles a C source with gcc.
    pub(crate) fn c(source: &str, flags: &[&str]) -> Self {
        Self::compile("gcc", "c", source, flags)
    }

    /// The program's file.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("program")
    }

    /// Puts a copy of a library beside it: the kernel shares probes by file, so
    /// that what others trace in the library itself would be felt here.
    pub(crate) fn keep_beside(self, library: &str) -> Self {
        std::fs::copy(library, self.beside(library)).unwrap();
        self
    }

    /// Where the copy of a library is.
    pub(crate) fn beside(&self, library: &str) -> PathBuf {
        self.directory.path().join(Path::new(library).file_name().unwrap())
    }

    /// The directory that it lies in.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }
}
