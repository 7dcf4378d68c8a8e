//! leakd, the daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    leakd::daemon::main()
}
