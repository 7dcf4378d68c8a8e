//! Where the benchmark keeps what it needs for as long as it runs.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::OnceLock;

use anyhow::{Context, Result};

/// What the names of our directories begin with; the pid follows.
pub const PREFIX: &str = "leakd-bench-";

/// The directory of this run, which goes when this is dropped.
#[derive(Debug)]
pub struct Scratch(());

static ROOT: OnceLock<PathBuf> = OnceLock::new();

impl Scratch {
    /// Makes it, lets `tempfile` make its own below it, and removes what runs left
    /// that were ended by kill -9.
    pub fn make() -> Result<Self> {
        let above = std::env::temp_dir();
        for_stale(&above, |path| drop(fs::remove_dir_all(path)));
        let root = above.join(format!("{PREFIX}{}", process::id()));
        fs::create_dir(&root).with_context(|| format!("cannot make {}", root.display()))?;
        // postgres runs as a user of its own.
        fs::set_permissions(&root, Permissions::from_mode(0o711))?;
        let root = ROOT.get_or_init(|| root);
        // Nobody can have set it before.
        let _ = tempfile::env::override_temp_dir(root);
        Ok(Self(()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove();
    }
}

/// Removes this run's directory: for when we have to go at once.
pub fn remove() {
    if let Some(root) = ROOT.get() {
        let _ = fs::remove_dir_all(root);
    }
}

/// The entries of a directory that runs made which are no more.
pub fn for_stale(directory: &Path, mut act: impl FnMut(&Path)) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let pid = pid.and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            act(&entry.path());
        }
    }
}
