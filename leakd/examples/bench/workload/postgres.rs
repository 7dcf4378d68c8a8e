//! Debian's postgres, as a server of its own in a temporary directory.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::unistd::User;
use tempfile::TempDir;

use crate::child::{Ending, tie, until};

/// How long it may take to start, or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where it is installed, and whom it runs as: root it refuses.
#[derive(Debug)]
pub struct Installed {
    programs: PathBuf,
    user: User,
}

impl Installed {
    /// The newest one, if there is one.
    pub fn find() -> Option<Self> {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
        let programs = versions.map(|version| version.path().join("bin"));
        let programs = programs.filter(|path| path.join("postgres").is_file()).max()?;
        let user = User::from_name("postgres").ok().flatten()?;
        Some(Self { programs, user })
    }

    fn command(&self, name: &str, directory: &Path) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.uid(self.user.uid.as_raw()).gid(self.user.gid.as_raw()).current_dir(directory);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    server: Ending,
    directory: TempDir,
}

impl Postgres {
    /// Makes an empty cluster and serves it, on a socket in its own directory.
    pub fn start(installed: &Installed) -> Result<Self> {
        let directory = TempDir::with_prefix("leakd-bench-")?;
        let path = directory.path();
        chown(path, Some(installed.user.uid.as_raw()), Some(installed.user.gid.as_raw()))?;
        let data = path.join("data");
        let mut initdb = installed.command("initdb", path);
        initdb.args(["--no-sync", "--auth=trust", "--no-locale", "--encoding=UTF8", "-D"]);
        let status = tie(initdb.arg(&data)).status().context("cannot start initdb")?;
        ensure!(status.success(), "initdb failed ({status})");
        let mut server = installed.command("postgres", path);
        server.args(["-F", "-c", "listen_addresses=", "-k"]).arg(path).arg("-D").arg(&data);
        // An immediate shutdown: its shared memory would stay otherwise.
        let server = Ending::start_by(&mut server, Signal::SIGQUIT)?;
        let mut postgres = Self { server, directory };
        // It writes its state there, in a line of its own.
        let state = data.join("postmaster.pid");
        until("postgres is ready", PATIENCE, || {
            ensure!(postgres.server.0.try_wait()?.is_none(), "postgres ended at once");
            Ok(fs::read_to_string(&state).is_ok_and(|text| text.contains("\nready")))
        })?;
        Ok(postgres)
    }

    /// A client program, told where the server is; it works in the server's
    /// directory.
    pub fn client(&self, installed: &Installed, name: &str) -> Command {
        let mut command = installed.command(name, self.directory());
        command.arg("--host").arg(self.directory());
        command
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The process that serves the only client.
    pub fn backend(&self) -> Option<u32> {
        let children = format!("/proc/{0}/task/{0}/children", self.pid());
        let children = fs::read_to_string(children).ok()?;
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(|pid| {
            // "postgres: postgres postgres [local] SELECT"
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|title| String::from_utf8_lossy(&title).contains("[local]"))
        })
    }

    /// Its main process, which has all of its libraries.
    pub fn pid(&self) -> u32 {
        self.server.0.id()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // In order, so that it gives its shared memory back.
        let _ = self.server.end(Signal::SIGINT, PATIENCE);
    }
}
