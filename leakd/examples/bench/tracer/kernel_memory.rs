//! Memory that the kernel uses on behalf of a process: what its cgroup is
//! charged for. BPF maps are charged to the cgroup of who made them, so this
//! tells what leakd's tables really take, whatever else the machine does.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use crate::scratch::{PREFIX, for_stale};

/// Where cgroups are mounted: version 2, then version 1 with its memory
/// controller.
const UNIFIED: &str = "/sys/fs/cgroup";
const MEMORY: &str = "/sys/fs/cgroup/memory";

/// A cgroup of our own; dropping it removes it. Whoever is in it must have
/// ended by then.
#[derive(Debug)]
pub struct Group {
    directory: PathBuf,
    unified: bool,
}

impl Group {
    /// Makes a cgroup; `None` where none accounts for kernel memory.
    pub fn make() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let (parent, unified) = parent();
        let directory = parent.join(format!("{PREFIX}{}-{number}", process::id()));
        fs::create_dir(&directory).ok()?;
        let group = Self { directory, unified };
        group.bytes().is_ok().then_some(group)
    }

    /// Makes a command run in it.
    pub fn take_in(&self, command: &mut Command) -> Result<()> {
        let members = File::options().write(true).open(self.directory.join("cgroup.procs"))?;
        // SAFETY: write(2) is safe between fork and exec; the file lives as long
        // as the closure, which owns it. "0" stands for who writes it.
        unsafe {
            command.pre_exec(move || {
                match libc::write(members.as_raw_fd(), c"0".as_ptr().cast(), 1) {
                    1 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                }
            });
        }
        Ok(())
    }

    /// Kernel memory that it is charged for, in bytes.
    pub fn bytes(&self) -> Result<u64> {
        let text = if self.unified {
            let all = fs::read_to_string(self.directory.join("memory.stat"))?;
            let line = all.lines().find_map(|line| line.strip_prefix("kernel "));
            line.context("memory.stat has no line `kernel`")?.to_owned()
        } else {
            fs::read_to_string(self.directory.join("memory.kmem.usage_in_bytes"))?
        };
        Ok(text.trim().parse()?)
    }
}

/// Where cgroups are made, and whether they are of version 2.
fn parent() -> (&'static Path, bool) {
    let enabled = fs::read_to_string(format!("{UNIFIED}/cgroup.subtree_control"));
    let unified = enabled.is_ok_and(|list| list.split_whitespace().any(|word| word == "memory"));
    (Path::new(if unified { UNIFIED } else { MEMORY }), unified)
}

/// Removes what runs left that were ended by kill -9.
pub fn clean() {
    for_stale(parent().0, |path| drop(fs::remove_dir(path)));
}

/// Removes this run's cgroups, whose members must have ended: for when we have to
/// go at once.
pub fn remove() {
    let own = format!("{PREFIX}{}-", process::id());
    for entry in fs::read_dir(parent().0).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&own) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // An empty cgroup that stays behind does no harm.
        let _ = fs::remove_dir(&self.directory);
    }
}
