//! The tool that leakd is compared with and that Debian's current release does not
//! have: memleak of libbpf-tools, out of Debian's unstable, with the C library that
//! it wants. Unpacked into a cache, not installed.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::process::say;
use crate::vm::archive::{self, Unpacked};

/// The packages, with the libraries that the program loads.
const UNPACKED: Unpacked = Unpacked {
    name: "root",
    suite: ("debian", "sid"),
    packages: &["libbpf-tools", "libc6", "libelf1t64", "libzstd1", "zlib1g"],
    file: "usr/sbin/memleak-libbpf",
    needs_libraries: false,
};

/// Where it is unpacked; downloaded if the cache does not have it. `None`, and said,
/// if it cannot be had: the comparison then lacks it.
pub fn ensure() -> Option<PathBuf> {
    match find() {
        Ok(root) => Some(root),
        Err(error) => {
            say!("memleak-libbpf is missing in the comparison: {error:#}");
            None
        }
    }
}

fn find() -> Result<PathBuf> {
    let cache = archive::cache_of("peers")?;
    std::fs::create_dir_all(&cache)
        .with_context(|| format!("cannot write to {}", cache.display()))?;
    archive::clean(&cache)?;
    UNPACKED.ensure(&cache)
}
