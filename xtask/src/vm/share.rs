//! The host's files for the virtual machine, which can only read them.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::archive::{self, Unpacked};
use super::{REASON, end_with_us, interrupted};
use crate::process;
use crate::toolchain::apt;

/// Run as root, with the mount point, the server, its socket and the user that
/// is to connect. In a mount namespace of its own all files are mounted once
/// more, read-only: what the server is asked to write, the kernel refuses. Ctrl-C
/// is not for it: it ends when qemu has gone.
const SERVE: &str = r#"
mount --bind / "$1"
mount -o remount,ro,bind / "$1"
umask 0177
trap '' INT
"$2" --socket-path="$3" -o source="$1",cache=always,sandbox=chroot &
trap 'kill $!; wait $!' TERM
n=0
until [ -S "$3" ] || [ $n = 100 ]; do sleep 0.1; n=$((n + 1)); done
chown "$4" "$3"
wait $!
"#;

/// The package of the server's, from Debian 13 on, and where that has it.
const PACKAGE: &str = "virtiofsd";
const INSTALLED: &str = "/usr/libexec/virtiofsd";

/// A part of qemu has it, up to Debian 12. It is unpacked: it cannot be installed
/// beside a newer qemu.
const UNPACKED: Unpacked = Unpacked {
    name: PACKAGE,
    suite: ("debian", "bookworm"),
    packages: &["qemu-system-common"],
    file: "usr/lib/qemu/virtiofsd",
    needs_libraries: true,
};

/// The server of the files, installed or unpacked if need be.
pub fn server() -> Result<PathBuf> {
    let places = [PathBuf::from(INSTALLED), Path::new("/").join(UNPACKED.file)];
    if let Some(place) = places.into_iter().find(|place| place.is_file()) {
        return Ok(place);
    }
    let cache = archive::cache()?;
    if !UNPACKED.is_in(&cache) && apt::candidate(PACKAGE).is_some() {
        apt::ensure(&[PACKAGE], &[], REASON)?;
        return Ok(INSTALLED.into());
    }
    Ok(UNPACKED.ensure(&cache)?.join(UNPACKED.file))
}

/// The server, ended when this is dropped.
#[derive(Debug)]
pub struct Share {
    child: Child,
    /// Where qemu connects to it.
    pub socket: PathBuf,
}

impl Share {
    /// Starts the server, with its socket and messages in `directory`.
    pub fn start(server: &Path, directory: &Path) -> Result<Self> {
        let mount = directory.join("host");
        fs::create_dir_all(&mount)?;
        let socket = directory.join("socket");
        let log = fs::File::create(directory.join("virtiofsd.log"))?;
        let reason = "show the virtual machine your files, read-only";
        let mut command = process::as_root("setpriv", &[], reason)?;
        // sudo loses what `end_with_us` sets; setpriv sets it again.
        command.args(["--pdeathsig", "TERM", "unshare", "--mount", "sh", "-e", "-c", SERVE, "sh"]);
        command.arg(&mount).arg(server).arg(&socket);
        command.arg(nix::unistd::getuid().to_string());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child =
            end_with_us(&mut command).spawn().context("cannot start the server of the files")?;
        let mut share = Self { child, socket };
        share.wait_ready(directory)?;
        Ok(share)
    }

    fn wait_ready(&mut self, directory: &Path) -> Result<()> {
        let user = nix::unistd::getuid().as_raw();
        loop {
            let ready = fs::metadata(&self.socket)
                .is_ok_and(|socket| socket.file_type().is_socket() && socket.uid() == user);
            if ready {
                return Ok(());
            }
            if interrupted() {
                bail!("interrupted");
            }
            if let Some(status) = self.child.try_wait()? {
                let log = fs::read_to_string(directory.join("virtiofsd.log")).unwrap_or_default();
                let last = log.lines().last().unwrap_or("it said nothing").to_owned();
                bail!("the server of the files ended ({status}): {last}");
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // It has ended if qemu has. sudo passes the signal on.
        if let Ok(None) = self.child.try_wait() {
            let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
        let _ = self.child.wait();
    }
}
