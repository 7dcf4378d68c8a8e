//! Processes on the command line.

/// Reads a process's number. Who knows its name only is told how to get there.
pub(super) fn process_id(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "a process's number is wanted: see `pgrep -a NAME`".to_owned())
}
