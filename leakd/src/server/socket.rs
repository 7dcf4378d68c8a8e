//! The socket and its rights; one daemon at a time.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Gid, Group, chown};
use tokio::net::{UnixListener, UnixStream};

/// Why nobody can connect.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another daemon has it.
    #[error("another leakd serves {} already: ask it with `leakctl status`", .0.display())]
    Taken(PathBuf),
    /// It cannot be made.
    #[error("cannot listen on {}: {source}", path.display())]
    System {
        /// The socket.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// The socket that clients connect to. It goes when this is dropped.
#[derive(Debug)]
pub struct Listening {
    listener: UnixListener,
    path: PathBuf,
    /// Held for as long as the daemon lives; the kernel lets go of it after a
    /// kill -9. The file stays: removing it would let two hold it.
    _lock: Flock<File>,
}

impl Listening {
    /// Makes the socket: for root and `group`, if there is such a group. What a
    /// daemon that was killed has left is replaced.
    pub fn bind(path: &Path, group: &str) -> Result<Self, SocketError> {
        let failed = |source| SocketError::System { path: path.to_owned(), source };
        if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
            fs::create_dir_all(directory).map_err(failed)?;
            // Clients must get to the socket, whatever the umask.
            let open = fs::Permissions::from_mode(0o755);
            fs::set_permissions(directory, open).map_err(failed)?;
        }
        let mut lock_path = path.as_os_str().to_owned();
        lock_path.push(".lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(lock_path)
            .map_err(failed)?;
        let lock =
            Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(
                |(_, error)| match error {
                    nix::errno::Errno::EWOULDBLOCK => SocketError::Taken(path.to_owned()),
                    other => failed(other.into()),
                },
            )?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = StdListener::bind(path).map_err(failed)?;
        // Until here it is as the umask says, which the daemon has set to keep
        // all others out.
        if let Some(gid) = group_id(group) {
            chown(path, None, Some(Gid::from_raw(gid))).map_err(|error| failed(error.into()))?;
        } else if !group.is_empty() {
            tracing::warn!("there is no group {group}: only root can connect");
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned(), _lock: lock })
    }

    /// The next client.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // Nothing is to be done where it has gone already.
        let _ = fs::remove_file(&self.path);
    }
}

/// The number of a group, by its name.
pub fn group_id(name: &str) -> Option<u32> {
    if name.is_empty() {
        return None;
    }
    Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw())
}
