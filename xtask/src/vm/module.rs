//! The kernel module of the tests (`leakd/tests/kernel/module`), built for a
//! kernel that is run in a virtual machine.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::archive::{self, Image};
use super::headers;
use crate::{process, workspace};

/// Says where it is.
pub const VARIABLE: &str = "LEAKD_TEST_MODULE";
const SOURCE: &str = "leakd/tests/kernel/module";
const FILES: [&str; 2] = ["Kbuild", "leaky.c"];

/// Debian packages that it takes to build it.
pub const PACKAGES: [&str; 3] = ["gcc", "libelf1", "make"];

/// Features of Debian's compiler for the kernel, or of other programs, that this
/// machine need not have, and a module can do without: types (BTF) of its own,
/// and the alignment of functions.
const WITHOUT: [&str; 2] =
    ["CONFIG_DEBUG_INFO_BTF_MODULES=", "CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT="];

/// Builds it, if its source has changed.
pub fn build(image: &Image) -> Result<PathBuf> {
    let headers = headers::of(&archive::cache()?, &image.release)
        .with_context(|| format!("there are no headers of Linux {}", image.release))?;
    let directory = workspace::target().join("vm/module").join(&image.release);
    fs::create_dir_all(&directory)?;
    for file in FILES {
        let source = fs::read(workspace::root().join(SOURCE).join(file))?;
        let copy = directory.join(file);
        // make goes by times.
        if fs::read(&copy).ok().as_ref() != Some(&source) {
            fs::write(copy, source)?;
        }
    }
    let mut make = Command::new("make");
    make.arg("--silent").arg("-C").arg(headers).arg(format!("M={}", directory.display()));
    make.args(["CC=gcc", "modules"]).args(WITHOUT);
    // What make runs is told a lot by the environment: of ours, nothing.
    make.env_remove("MAKEFLAGS").env_remove("KBUILD_OUTPUT");
    process::run(&mut make).context("cannot build the kernel module of the tests")?;
    Ok(directory.join("leaky.ko"))
}
