//! Other programs that the benchmark starts: none of them outlives it.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// Makes the kernel end the command when this program ends, however it does.
pub fn tie(command: &mut Command) -> &mut Command {
    // SAFETY: prctl(2) with integers is safe between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        })
    }
}

/// A running child; dropping it ends it.
#[derive(Debug)]
pub struct Ending(pub Child);

impl Drop for Ending {
    fn drop(&mut self) {
        // It may have gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
