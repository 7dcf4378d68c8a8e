//! What modules of a kernel are built with: Debian's packages of its headers and
//! of the programs of its build system.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::archive::{self, Archive};

/// Where the packages have the headers, below where they are unpacked.
const SOURCES: &str = "usr/src";
/// The programs of a module's build, as far as a kernel has them. Some want a C
/// library as new as that of the kernel's Debian. What is "real" is chosen by the
/// program without that in its name.
const PROGRAMS: [&str; 5] = [
    "scripts/basic/fixdep",
    "scripts/mod/modpost",
    "scripts/mod/modpost.real-lsb-64",
    "tools/objtool/objtool",
    "tools/objtool/objtool.real-x86",
];
/// Brings that library, in Debian's release behind the newest kernels.
const LIBRARY: &str = "libc6/trixie";
/// Where we put it, and where it is in there.
const LIBRARY_AT: [&str; 2] = ["library", "usr/lib/x86_64-linux-gnu"];

/// Stands in for a program that this machine's C library is too old for.
const WRAPPER: &str = r#"#!/bin/sh
exec 'LIBRARY/ld-linux-x86-64.so.2' --library-path 'LIBRARY' "$0.own" "$@"
"#;

/// The directory that a module is built in terms of, if it is in the cache.
pub fn of(cache: &Path, release: &str) -> Option<PathBuf> {
    let place = place(cache, release);
    let build = place.join(SOURCES).join(format!("linux-headers-{release}"));
    build.join("Makefile").is_file().then_some(build)
}

fn place(cache: &Path, release: &str) -> PathBuf {
    cache.join("headers").join(release)
}

/// Downloads the packages for a kernel and unpacks them.
pub fn unpack(archive: &Archive, release: &str) -> Result<()> {
    let headers = format!("linux-headers-{release}");
    let needed = archive.depends(&headers)?.into_iter().filter(|package| {
        package.starts_with("linux-headers-") || package.starts_with("linux-kbuild-")
    });
    let packages: Vec<String> = [headers.clone()].into_iter().chain(needed).collect();
    let fresh = archive.staging()?;
    archive.extract(&packages, &fresh.0)?;
    let place = place(&archive.cache, release);

    // It includes the headers that all flavours share, by an absolute path.
    let build = fresh.0.join(SOURCES).join(&headers);
    let makefile = build.join("Makefile");
    let text = fs::read_to_string(&makefile).with_context(|| format!("{headers}: no Makefile"))?;
    let (from, to) = (format!("/{SOURCES}/"), format!("{}/", place.join(SOURCES).display()));
    fs::write(&makefile, text.replace(&from, &to))?;

    for program in PROGRAMS.map(|program| build.join(program)) {
        if !program.is_file() || starts(&program)? {
            continue;
        }
        let [ours, theirs] = LIBRARY_AT;
        if !fresh.0.join(ours).is_dir() {
            archive.extract(&[LIBRARY.to_owned()], &fresh.0.join(ours))?;
        }
        wrap(&program, &place.join(ours).join(theirs))?;
    }
    archive::publish(&fresh.0, &place, || of(&archive.cache, release).is_some())
}

/// Whether a program starts with this machine's C library: its loader is who
/// names versions of that.
fn starts(program: &Path) -> Result<bool> {
    let output = Command::new(program).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot start {}", program.display()))?;
    Ok(!String::from_utf8_lossy(&output.stderr).contains("GLIBC_"))
}

/// Has a program run with another C library.
fn wrap(program: &Path, library: &Path) -> Result<()> {
    let mut real = program.as_os_str().to_owned();
    real.push(".own");
    fs::rename(program, &real)?;
    fs::write(program, WRAPPER.replace("LIBRARY", &library.to_string_lossy()))?;
    fs::set_permissions(program, fs::metadata(&real)?.permissions())?;
    Ok(())
}
