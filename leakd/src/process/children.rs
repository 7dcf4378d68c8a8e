//! The children of a process.

use super::ProcessError;
use super::info::open;

/// More children than any of the processes has that would be followed.
const MAX_CHILDREN: usize = 65_536;

/// The pids of a process's children, in ascending order. A child that its
/// parent makes meanwhile may be missing.
///
/// # Errors
/// See [`ProcessError`].
pub fn find_children(pid: u32) -> Result<Vec<u32>, ProcessError> {
    let mut children = Vec::new();
    let tasks =
        open(pid)?.tasks().map_err(|error| ProcessError::from_procfs(pid, "task", error))?;
    for task in tasks {
        // A thread that has ended has left its children to another one.
        let Ok(of_thread) = task.and_then(|task| task.children()) else { continue };
        children.extend(of_thread);
        if children.len() > MAX_CHILDREN {
            let limit = MAX_CHILDREN;
            return Err(ProcessError::TooLarge { pid, what: "children", limit });
        }
    }
    children.sort_unstable();
    children.dedup();
    Ok(children)
}
