//! Making links so that even a SIGKILL in the middle leaves no probe behind.
//!
//! If a task has a fatal signal pending while the kernel puts breakpoints into a
//! target on its behalf, the kernel breaks off, and fails for the same reason to take
//! out those that are in already (see `release`). So a child makes links, and hands
//! them over: if this process is killed meanwhile, the child has them to the end, and
//! closes them by exiting.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, socketpair,
};

use super::child::{self, Turn};

/// Has a child make so many descriptors, by calling `make` with 0, 1, ... until it
/// fails, and gives those that were made, and why there are not more.
///
/// `make` may make system calls, and touch memory that was allocated before, but not
/// allocate, lock or panic.
pub(super) fn descriptors(
    count: usize,
    make: impl FnMut(usize) -> io::Result<RawFd>,
) -> (Vec<OwnedFd>, io::Result<()>) {
    descriptors_in(&child::turn(), count, make)
}

fn descriptors_in(
    turn: &Turn,
    count: usize,
    mut make: impl FnMut(usize) -> io::Result<RawFd>,
) -> (Vec<OwnedFd>, io::Result<()>) {
    let mut made = Vec::with_capacity(count);
    let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
    let (ours, its) = match pair {
        Ok(pair) => pair,
        Err(error) => return (made, Err(error.into())),
    };
    let child = turn.child(|| {
        // Or it would never notice that nobody is there any more.
        child::shut(&ours);
        // What is made last may be needed for what is made next: all is kept.
        for number in 0..count {
            let unknown = libc::EIO;
            let result = make(number).map_err(|error| error.raw_os_error().unwrap_or(unknown));
            if hand_over(&its, result).is_err() || result.is_err() {
                return;
            }
        }
    });
    drop(its);
    let child = match child {
        Ok(child) => child,
        Err(error) => {
            tracing::debug!("links are made without a child: {error}");
            return without_child(count, make);
        }
    };
    let mut outcome = Ok(());
    while made.len() < count && outcome.is_ok() {
        match receive(&ours) {
            Ok(descriptor) => made.push(descriptor),
            Err(error) => outcome = Err(error),
        }
    }
    // It must not wait for room in the socket either.
    drop(ours);
    // While it lives, it has them, too.
    child::wait(child);
    (made, outcome)
}

/// The same by this process itself, which a SIGKILL may then find in the middle: where
/// it may have no more children.
fn without_child(
    count: usize,
    make: impl FnMut(usize) -> io::Result<RawFd>,
) -> (Vec<OwnedFd>, io::Result<()>) {
    let mut made = Vec::with_capacity(count);
    for descriptor in (0..count).map(make) {
        match descriptor {
            // SAFETY: it was made just now, and is nobody else's.
            Ok(descriptor) => made.push(unsafe { OwnedFd::from_raw_fd(descriptor) }),
            Err(error) => return (made, Err(error)),
        }
    }
    (made, Ok(()))
}

/// A message of four bytes: the error's number, or 0 and with it the descriptor.
fn hand_over(to: &OwnedFd, result: Result<RawFd, i32>) -> Result<(), Errno> {
    /// A control message with one descriptor, as cmsg(3) has it: CMSG_SPACE(4).
    #[repr(C)]
    struct Control {
        header: libc::cmsghdr,
        descriptor: RawFd,
        padding: u32,
    }
    const _: () = assert!(size_of::<Control>() == 24);
    // SAFETY: CMSG_LEN only computes.
    let length = unsafe { libc::CMSG_LEN(size_of::<RawFd>() as u32) };
    let mut control = Control {
        header: libc::cmsghdr {
            cmsg_len: length as usize,
            cmsg_level: libc::SOL_SOCKET,
            cmsg_type: libc::SCM_RIGHTS,
        },
        descriptor: result.unwrap_or(-1),
        padding: 0,
    };
    let mut number = result.err().unwrap_or(0);
    let mut part = libc::iovec { iov_base: (&raw mut number).cast(), iov_len: size_of::<i32>() };
    // SAFETY: as zeros it names nothing, and is without padding that matters.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if result.is_ok() {
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = size_of::<Control>();
    }
    // SAFETY: all that the message names lives through the call and has the length
    // given beside it.
    Errno::result(unsafe { libc::sendmsg(to.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) })
        .map(drop)
}

/// The next descriptor, or why there is none.
fn receive(from: &OwnedFd) -> io::Result<OwnedFd> {
    let mut number = [0u8; size_of::<i32>()];
    let mut control = cmsg_space!(RawFd);
    let mut parts = [IoSliceMut::new(&mut number)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let (bytes, descriptor) = loop {
        match recvmsg::<()>(from.as_raw_fd(), &mut parts, Some(&mut control), flags) {
            Ok(message) => {
                let descriptor = message.cmsgs()?.find_map(|one| match one {
                    ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
                    _ => None,
                });
                break (message.bytes, descriptor);
            }
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    match (bytes, i32::from_ne_bytes(number), descriptor) {
        // SAFETY: the kernel has just made this descriptor, and for us alone.
        (4, 0, Some(descriptor)) => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        (4, 0, None) => Err(io::Error::other("no room for another descriptor")),
        (4, number, _) => Err(io::Error::from_raw_os_error(number)),
        _ => Err(io::Error::other("the child that was to make the links was killed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, poll};
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;

    fn pipe() -> (File, OwnedFd) {
        let (read, write) = nix::unistd::pipe().expect("a pipe");
        (File::from(read), write)
    }

    /// Check that what a child makes works here, in the same order, and that nobody
    /// else has it.
    #[test]
    fn descriptors_are_handed_over() {
        let pipes: Vec<_> = (0..3).map(|_| pipe()).collect();
        let (made, outcome) = descriptors(3, |number| {
            // SAFETY: a plain system call, on a descriptor that is open.
            Ok(Errno::result(unsafe { libc::dup(pipes[number].1.as_raw_fd()) })?)
        });
        outcome.expect("all of them");
        let ends: Vec<File> = pipes.into_iter().map(|(read, _write)| read).collect();
        for (number, (mut end, made)) in ends.into_iter().zip(made).enumerate() {
            nix::unistd::write(&made, &[number as u8]).expect("it is a pipe");
            drop(made);
            let mut bytes = Vec::new();
            end.read_to_end(&mut bytes).expect("the end, when the last is closed");
            assert_eq!(bytes, [number as u8]);
        }
    }

    /// Check that the first failure ends it, and what was made before is kept.
    #[test]
    fn failures_are_told() {
        let (_read, write) = pipe();
        let make = |number| match number {
            2 => Err(Errno::EXDEV.into()),
            // SAFETY: as above.
            _ => Ok(Errno::result(unsafe { libc::dup(write.as_raw_fd()) })?),
        };
        for (made, outcome) in [descriptors(5, make), without_child(5, make)] {
            assert_eq!(made.len(), 2);
            assert_eq!(outcome.unwrap_err().raw_os_error(), Some(libc::EXDEV));
        }
    }

    /// Check that a child ends, and closes what it has made, when the process that it
    /// makes it for is killed.
    #[test]
    fn nobody_takes_them() {
        let (mut first, say_first) = pipe();
        let (end, held) = pipe();
        // Its copy of the turn would stay with a thread that it does not have.
        let turn = child::turn();
        // SAFETY: the child does as if it were the only thread: it forks, waits for
        // messages and is killed.
        let maker = match unsafe { nix::unistd::fork() }.expect("a process") {
            nix::unistd::ForkResult::Parent { child } => child,
            nix::unistd::ForkResult::Child => {
                let _ = descriptors_in(&turn, 100_000, |number| {
                    if number == 0 {
                        let _ = nix::unistd::write(&say_first, b"1");
                    }
                    // Slowly, so that it is not done before.
                    std::thread::sleep(std::time::Duration::from_millis(1));
                    // SAFETY: a plain system call, on a descriptor that is open.
                    Ok(Errno::result(unsafe { libc::dup(held.as_raw_fd()) })?)
                });
                // SAFETY: nothing of this program runs any more.
                unsafe { libc::_exit(0) }
            }
        };
        drop((say_first, held, turn));
        first.read_exact(&mut [0]).expect("it makes them");
        nix::sys::signal::kill(maker, nix::sys::signal::Signal::SIGKILL).expect("our child");
        child::wait(maker);
        let mut ended = [PollFd::new(end.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut ended, 30_000u16), Ok(1), "somebody has it still");
    }

    /// Check that a child that is killed is no reason to wait for ever.
    #[test]
    fn a_killed_child_is_noticed() {
        let (made, outcome) = descriptors(2, |_| {
            // SAFETY: plain system calls.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
            Err(Errno::EINVAL.into())
        });
        assert!(made.is_empty());
        assert!(outcome.unwrap_err().to_string().contains("killed"));
    }
}
