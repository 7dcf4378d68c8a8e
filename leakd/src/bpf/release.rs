//! Closing links so that even a SIGKILL in the middle leaves no probe behind.
//!
//! To take a probe out, the kernel reads a page of the target on behalf of whoever
//! closes the link, and gives up if that task has a fatal signal pending: "failed to
//! unregister, leaking uprobe" (`uprobe_unregister_nosync`, kernel/events/uprobes.c;
//! in all kernels so far). The breakpoint then stays until the target ends. A
//! process that is exiting takes no signal any more. So links are handed to children
//! that do nothing but exit: what they hold is closed on their way out.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{Pid, pipe2};

use super::child::{self, Turn, shut};

/// Children at a time. The kernel takes some 40 ms for each link, and those of
/// several children at once.
const CHILDREN: usize = 8;

/// Closes descriptors, those of a group by one child; returns when the kernel has
/// done all that follows from it.
pub(super) fn close(groups: Vec<Vec<OwnedFd>>) {
    if groups.is_empty() {
        return;
    }
    let turn = child::turn();
    let children = Children::fork(&turn, &groups);
    // They hold them, too.
    drop(groups);
    match children {
        Ok(children) => children.let_go(),
        Err(error) => tracing::debug!("links were closed without children: {error}"),
    }
}

/// Processes that hold the descriptors of one group or more each.
struct Children {
    pids: Vec<Pid>,
    /// Each exits when it has read a byte of this, or when all have gone that could
    /// write one, however that came about.
    until: OwnedFd,
    held: OwnedFd,
}

impl Children {
    /// Returns when each holds what is its own, and nothing of the others'.
    fn fork(turn: &Turn, groups: &[Vec<OwnedFd>]) -> io::Result<Self> {
        let (ready, say_ready) = pipe2(OFlag::O_CLOEXEC)?;
        let (until, held) = pipe2(OFlag::O_CLOEXEC)?;
        let wanted = groups.len().min(CHILDREN);
        let mut children = Self { pids: Vec::with_capacity(wanted), until, held };
        let mut failed = None;
        for number in 0..wanted {
            let child = turn.child(|| {
                let others = groups.iter().enumerate();
                let others = others.filter(|(group, _)| group % wanted != number);
                for descriptor in others.flat_map(|(_, group)| group) {
                    shut(descriptor);
                }
                shut(&children.held);
                say(&say_ready);
                // Whoever waits for it must not wait for the one that is killed.
                shut(&say_ready);
                hear(&children.until);
            });
            match child {
                Ok(child) => children.pids.push(child),
                Err(error) => failed = Some(error),
            }
        }
        drop(say_ready);
        // Ends when each has said so or is gone. What could not be forked is closed
        // by this process.
        let mut bytes = Vec::new();
        let _ = File::from(ready).take(children.pids.len() as u64).read_to_end(&mut bytes);
        match failed {
            Some(error) if children.pids.is_empty() => Err(error.into()),
            _ => Ok(children),
        }
    }

    /// Has them exit; returns when all have.
    fn let_go(self) {
        // To close it is not enough: a process that another thread has forked, and
        // which has not come to exec yet, has a copy.
        self.pids.iter().for_each(|_| say(&self.held));
        drop(self.held);
        self.pids.into_iter().for_each(child::wait);
    }
}

/// Writes a byte.
fn say(to: &OwnedFd) {
    // SAFETY: one byte is read, of a constant. That nobody listens any more is
    // no matter: then this process is about to be let go.
    unsafe { libc::write(to.as_raw_fd(), [0u8].as_ptr().cast(), 1) };
}

/// Waits for a byte, or for all copies of the other end of a pipe to be closed.
fn hear(until: &OwnedFd) {
    let mut byte = 0u8;
    // SAFETY: a byte of this function's own is read to.
    while unsafe { libc::read(until.as_raw_fd(), (&raw mut byte).cast(), 1) } < 0
        && Errno::last() == Errno::EINTR
    {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that everything is closed when it returns, with more groups than there
    /// are children, and that nothing of it is left of the children.
    #[test]
    fn all_is_closed() {
        let pairs = (0..3 * CHILDREN).map(|_| pipe2(OFlag::O_CLOEXEC).expect("a pipe"));
        let (ends, mut groups): (Vec<OwnedFd>, Vec<Vec<OwnedFd>>) =
            pairs.map(|(read, write)| (read, vec![write])).unzip();
        let (end, write) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        groups[0].push(write);
        close(groups);
        for end in ends.into_iter().chain([end]) {
            let mut bytes = Vec::new();
            File::from(end).read_to_end(&mut bytes).expect("it can be read");
            assert!(bytes.is_empty());
        }
    }

    /// Check that it does not wait for a process that was forked meanwhile, by
    /// another thread, and has a copy of everything.
    #[test]
    fn nobody_waits_for_bystanders() {
        let (until, held) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        let (_read, write) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        let turn = child::turn();
        let children = Children::fork(&turn, &[vec![write]]).expect("processes");
        let bystander = turn.child(|| {
            // Or it would stay for ever if this process were killed.
            shut(&held);
            hear(&until);
        });
        let bystander = bystander.expect("a process");
        let (say_done, done) = std::sync::mpsc::channel();
        let letting_go = std::thread::spawn(move || {
            children.let_go();
            let _ = say_done.send(());
        });
        // No limit on how fast it is: it would wait for ever.
        let outcome = done.recv_timeout(std::time::Duration::from_secs(60));
        say(&held);
        child::wait(bystander);
        letting_go.join().expect("a thread");
        outcome.expect("it waits for the bystander");
    }
}
