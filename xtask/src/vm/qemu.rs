//! The emulator: the installed one, or a newer one out of Debian's backports,
//! unpacked into the cache and not installed: an installed one that is older or
//! newer than Debian 12's keeps apt from installing another beside it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use super::REASON;
use super::archive::{self, Unpacked};
use crate::process;
use crate::toolchain::apt;

/// What it is called.
const NAME: &str = "qemu-system-x86_64";

/// From 8.1 on, a kernel that changes its own code, as it does for static keys,
/// never runs the old code ("accel/tcg: Always lock pages before translation").
/// Before, with a thread for each processor, it did: on 6.1 a `jmp` that had been
/// patched in was not seen for minutes, 6.12 panicked.
const WANTED: (u32, u32) = (8, 1);

/// The package of Debian's that it is in.
const PACKAGE: &str = "qemu-system-x86";

/// Where it comes from for the C library of Debian 12, which itself has 7.2: with the
/// firmware that it boots by.
const UNPACKED: Unpacked = Unpacked {
    name: "qemu",
    suite: ("debian", "bookworm-backports"),
    packages: &[PACKAGE, "qemu-system-data", "seabios"],
    file: "usr/bin/qemu-system-x86_64",
    needs_libraries: true,
};
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
    /// The installed one; if there is none, or one too old to emulate, this
    /// Debian's; if that is too old, the one from backports.
    ///
    /// # Errors
    /// If none can be installed or downloaded, or none runs.
    pub fn ensure(emulates: bool) -> Result<Self> {
        let installed = Self { program: NAME.into(), root: None };
        if installed.version().is_some_and(|version| !emulates || version >= WANTED) {
            return Ok(installed);
        }
        let candidate = apt::candidate(PACKAGE);
        let candidate = candidate.as_deref().and_then(parse_package_version);
        let one = if candidate >= Some(WANTED) {
            apt::ensure(&[PACKAGE], &[], REASON)?;
            installed
        } else {
            Self::unpacked()?
        };
        if one.version().is_none_or(|version| version < WANTED) {
            let (major, minor) = WANTED;
            bail!("{} is no qemu {major}.{minor} or newer that runs here", one.program.display());
        }
        Ok(one)
    }

    fn unpacked() -> Result<Self> {
        let root = UNPACKED.ensure(&archive::cache()?)?;
        Ok(Self { program: root.join(UNPACKED.file), root: Some(root) })
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
    numbers(said.split_once("version ")?.1)
}

/// "1:7.2+dfsg-7+deb12u18".
fn parse_package_version(version: &str) -> Option<(u32, u32)> {
    numbers(version.split_once(':').map_or(version, |(_, upstream)| upstream))
}

fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(|one: char| !one.is_ascii_digit());
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
        assert_eq!(parse_package_version("1:7.2+dfsg-7+deb12u18+b3"), Some((7, 2)));
        assert_eq!(parse_package_version("10.0.2+ds-2"), Some((10, 0)));
    }
}
