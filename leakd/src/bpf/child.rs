//! Children that make system calls for this process, or hold descriptors for it,
//! and then exit: what the kernel would break off half-way in a process that is
//! killed, it does in them.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The right to have children.
///
/// One at a time: a child has all descriptors of this process while it lives, also
/// those that another thread would be about to close.
pub(super) struct Turn {
    _guard: MutexGuard<'static, ()>,
}

/// Waits for it.
pub(super) fn turn() -> Turn {
    static ONE: Mutex<()> = Mutex::new(());
    Turn { _guard: ONE.lock().unwrap_or_else(PoisonError::into_inner) }
}

impl Turn {
    /// Makes a child that runs `body` and exits. Of this process's threads it has
    /// only the caller: `body` may make system calls and touch memory that was
    /// allocated before, but not allocate, lock or panic.
    pub(super) fn child(&self, body: impl FnOnce()) -> Result<Pid, Errno> {
        // A handler of this process is none of the child's.
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        // SAFETY: the child does as `body` has promised, and exits without running
        // any destructor.
        let forked = match unsafe { fork() } {
            Ok(ForkResult::Child) => {
                // A kill -9 of this process's group is not for it. Each is the
                // leader of no group, so it cannot fail.
                let _ = nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0));
                body();
                // SAFETY: _exit(2) runs nothing of this program's any more.
                unsafe { libc::_exit(0) }
            }
            Ok(ForkResult::Parent { child }) => Ok(child),
            Err(error) => Err(error),
        };
        // Of the calling thread, and just what it was: it cannot fail.
        let _ = mask.thread_set_mask();
        forked
    }
}

/// Waits for a child's end.
pub(super) fn wait(pid: Pid) {
    while waitpid(pid, None) == Err(Errno::EINTR) {}
}

/// Closes a descriptor within a child.
pub(super) fn shut(descriptor: &OwnedFd) {
    // SAFETY: the child exits without touching it again.
    unsafe { libc::close(descriptor.as_raw_fd()) };
}
