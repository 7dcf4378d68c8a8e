//! The emulator: the installed one, or a newer one out of Debian's backports,
//! unpacked into the cache and not installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::archive;
use crate::process;

/// What it is called.
const NAME: &str = "qemu-system-x86_64";

/// From 8.1 on, a kernel that changes its own code, as it does for static keys,
/// never runs the old code ("accel/tcg: Always lock pages before translation").
/// Before, with a thread for each processor, it did: on 6.1 a `jmp` that had been
/// patched in was not seen for minutes, 6.12 panicked.
const WANTED: (u32, u32) = (8, 1);

/// Where it comes from: for the C library of Debian 12, which has 7.2. Whatever is
/// newer than that has a newer one installed.
const SUITE: (&str, &str) = ("debian", "bookworm-backports");
/// With the firmware that it boots by.
const PACKAGES: [&str; 3] = ["qemu-system-data", "qemu-system-x86", "seabios"];
/// Where those have the firmware.
const FIRMWARE: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];

/// An emulator that can be run.
#[derive(Clone, Debug)]
pub struct Qemu {
    program: PathBuf,
    /// Where it was unpacked; `None`: it is installed.
    root: Option<PathBuf>,
}

impl Qemu {
    /// The installed one; if that is too old to emulate, the one from backports.
    ///
    /// # Errors
    /// If there is none, or none can be downloaded.
    pub fn ensure(emulates: bool) -> Result<Self> {
        let installed = Self { program: NAME.into(), root: None };
        let Some(version) = installed.version() else {
            bail!("{NAME} is not in PATH: install qemu-system-x86");
        };
        if !emulates || version >= WANTED {
            return Ok(installed);
        }
        let unpacked = Self::unpacked(&archive::cache()?).with_context(|| {
            format!(
                "{NAME} is of version {}.{}; emulating takes {}.{} or newer",
                version.0, version.1, WANTED.0, WANTED.1
            )
        })?;
        let runs = unpacked.version().is_some_and(|version| version >= WANTED);
        if !runs {
            bail!("{} does not run here: install a newer qemu", unpacked.program.display());
        }
        Ok(unpacked)
    }

    fn unpacked(cache: &Path) -> Result<Self> {
        let file = format!("usr/bin/{NAME}");
        let root = archive::unpacked(cache, "qemu", SUITE, &PACKAGES, &file)?;
        Ok(Self { program: root.join(file), root: Some(root) })
    }

    /// A command that runs it.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(root) = &self.root {
            for directory in FIRMWARE {
                command.arg("-L").arg(root.join(directory));
            }
        }
        command
    }

    /// Major and minor; `None` if it does not run.
    fn version(&self) -> Option<(u32, u32)> {
        let said = process::output(self.command().arg("--version")).ok()?;
        parse_version(&said)
    }
}

/// "QEMU emulator version 7.2.22 (Debian ...)".
fn parse_version(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.split_once("version ")?.1.split(['.', ' ']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that versions are read, and compare as numbers.
    #[test]
    fn reads_versions() {
        let version = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright";
        assert_eq!(parse_version(version), Some((10, 0)));
        assert!(parse_version("QEMU emulator version 7.2.22\n") < Some(WANTED));
        assert_eq!(parse_version("command not found"), None);
    }
}
