//! Who a client is, as the kernel vouches for it.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

/// Groups that are asked for at once; a process can have 65,536.
const GROUPS: usize = 64;
/// `SO_PEERGROUPS` (asm-generic/socket.h), which libc does not name.
const SO_PEERGROUPS: i32 = 59;

/// A client's process when it connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its pid, in leakd's pid namespace.
    pub pid: i32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
    /// Its other groups.
    pub groups: Vec<u32>,
}

impl Peer {
    /// The process at the other end of a Unix socket.
    pub fn of(socket: &impl AsFd) -> io::Result<Self> {
        let credentials = getsockopt(&socket.as_fd(), PeerCredentials)?;
        Ok(Self {
            pid: credentials.pid(),
            uid: credentials.uid(),
            gid: credentials.gid(),
            groups: groups(socket)?,
        })
    }

    /// Whether it may attach, detach and set.
    pub fn may_change(&self, admin_gid: Option<u32>) -> bool {
        self.uid == 0 || admin_gid.is_some_and(|gid| self.gid == gid || self.groups.contains(&gid))
    }
}

fn groups(socket: &impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups = vec![0u32; GROUPS];
    loop {
        let mut bytes = (groups.len() * size_of::<u32>()) as libc::socklen_t;
        // SAFETY: `groups` is good for `bytes` bytes, which the kernel reads
        // and then sets to what it has written, or would have.
        let status = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let needed = bytes as usize / size_of::<u32>();
        if status == 0 {
            groups.truncate(needed);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) || needed <= groups.len() {
            return Err(error);
        }
        groups.resize(needed, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Check that the other end of a socket pair is this process.
    #[test]
    fn own_credentials() {
        let (one, _other) = UnixStream::pair().expect("sockets");
        let peer = Peer::of(&one).expect("credentials");
        assert_eq!(peer.pid as u32, std::process::id());
        assert_eq!(peer.uid, nix::unistd::geteuid().as_raw());
        let mut groups: Vec<u32> =
            nix::unistd::getgroups().expect("groups").iter().map(|gid| gid.as_raw()).collect();
        let mut seen = peer.groups.clone();
        groups.sort_unstable();
        seen.sort_unstable();
        assert_eq!(seen, groups);
    }

    /// Check that root and the group may change things, and nobody else.
    #[test]
    fn rights() {
        let peer = |uid, gid, groups: &[u32]| Peer { pid: 1, uid, gid, groups: groups.to_vec() };
        assert!(peer(0, 0, &[]).may_change(None));
        assert!(!peer(1000, 0, &[]).may_change(None));
        assert!(peer(1000, 50, &[]).may_change(Some(50)));
        assert!(peer(1000, 100, &[4, 50]).may_change(Some(50)));
        assert!(!peer(1000, 100, &[4]).may_change(Some(50)));
    }
}
