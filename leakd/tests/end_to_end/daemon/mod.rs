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

/// The same, with a budget that is never used up, however slow the machine is.
const QUIET_WITHOUT_LIMIT: &str = "mode = 'off'\nlog_level = 'debug'\n[watch]\ninterval = '500ms'\nstartup = '0s'\n\
     [budget]\ntarget_percent = 100\nmachine_percent = 100";
