//! Tests that are not run in virtual machines, with the reason.
//!
//! The one place for them: what is here is printed with each run, and what is
//! not here runs.

/// A test that is left out.
#[derive(Clone, Copy, Debug)]
pub struct LeftOut {
    /// The kernels on which it is; none: all.
    pub kernels: &'static [&'static str],
    /// The test's name within its program.
    pub test: &'static str,
    /// Why it cannot run there.
    pub reason: &'static str,
}

/// All that are left out.
pub const LEFT_OUT: [LeftOut; 0] = [];

/// Those that are left out on one kernel.
pub fn on(kernel: &str) -> impl Iterator<Item = &'static LeftOut> {
    LEFT_OUT.iter().filter(move |one| one.kernels.is_empty() || one.kernels.contains(&kernel))
}
