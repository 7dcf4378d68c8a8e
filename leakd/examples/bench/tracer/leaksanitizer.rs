//! LeakSanitizer, gcc's: preloaded, so that the program stays as it is.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Result;

use super::{Tracer, Way, Wrapped, first_line};

/// LeakSanitizer.
#[derive(Clone, Copy, Debug)]
pub struct LeakSanitizer;

/// gcc's library, as gcc itself finds it.
fn library() -> Option<PathBuf> {
    let output = Command::new("cc").arg("-print-file-name=liblsan.so").output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    // A name that cc does not know comes back as it was.
    if path.is_absolute() { path.canonicalize().ok() } else { None }
}

impl Tracer for LeakSanitizer {
    fn name(&self) -> &'static str {
        "lsan"
    }

    fn about(&self) -> &'static str {
        "LeakSanitizer of gcc, preloaded from the start"
    }

    fn version(&self) -> Result<String, String> {
        library().ok_or("gcc has no liblsan.so")?;
        first_line(Command::new("cc").arg("--version").stdin(Stdio::null()))
    }

    fn way(&self) -> Way {
        Way::Wrap
    }

    fn wrap(&mut self, directory: &Path) -> Result<Wrapped> {
        let library = library().ok_or_else(|| anyhow::anyhow!("gcc has no liblsan.so"))?;
        let report = directory.join("lsan.txt");
        // What it finds must not end in an exit status that looks like a failure.
        let options = format!("exitcode=0:log_path={}", report.display());
        let variables = vec![
            ("LD_PRELOAD".into(), library.into_os_string()),
            ("LSAN_OPTIONS".into(), options.into()),
        ];
        Ok(Wrapped { variables, report, ..Wrapped::default() })
    }
}
