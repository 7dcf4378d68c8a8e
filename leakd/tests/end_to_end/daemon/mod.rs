//! The daemon on real processes, over its real socket.

mod clients;
mod faults;
mod kernel;
mod lifecycle;
mod patterns;
mod traces;

/// Traces nothing by itself.
const QUIET: &str =
    "mode = 'off'\nlog_level = 'debug'\n[watch]\ninterval = '500ms'\nstartup = '0s'";
