//! leakctl, the client.

use std::process::ExitCode;

fn main() -> ExitCode {
    leakd::cli::main()
}
