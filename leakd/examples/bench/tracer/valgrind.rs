//! valgrind's memcheck.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;

use super::{Tracer, Way, Wrapped, first_line};

/// valgrind's memcheck.
#[derive(Clone, Copy, Debug)]
pub struct Valgrind;

impl Tracer for Valgrind {
    fn name(&self) -> &'static str {
        "valgrind"
    }

    fn about(&self) -> &'static str {
        "valgrind --leak-check=full, from the start"
    }

    fn version(&self) -> Result<String, String> {
        first_line(Command::new("valgrind").arg("--version").stdin(Stdio::null()))
    }

    fn way(&self) -> Way {
        Way::Wrap
    }

    fn wrap(&mut self, directory: &Path) -> Result<Wrapped> {
        let report = directory.join("valgrind.txt");
        let log = format!("--log-file={}", report.display());
        let prefix = ["valgrind", "--leak-check=full", &log].map(Into::into).to_vec();
        Ok(Wrapped { prefix, report, ..Wrapped::default() })
    }
}
