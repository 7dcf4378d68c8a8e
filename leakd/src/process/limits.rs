//! How much memory a process may have.

use procfs::process::LimitValue;

use super::ProcessError;
use super::info::open;

/// Whether the kernel may refuse the process address space while the machine
/// has memory: by RLIMIT_AS or RLIMIT_DATA (getrlimit(2)), or because the
/// machine commits no more than it has (`vm.overcommit_memory` = 2).
///
/// # Errors
/// If the process is gone, or leakd may not look at it.
pub fn memory_is_limited(pid: u32) -> Result<bool, ProcessError> {
    let limits =
        open(pid)?.limits().map_err(|error| ProcessError::from_procfs(pid, "its limits", error))?;
    let is_set = |limit| matches!(limit, LimitValue::Value(_));
    let overcommit = std::fs::read_to_string("/proc/sys/vm/overcommit_memory");
    Ok(is_set(limits.max_address_space.soft_limit)
        || is_set(limits.max_data_size.soft_limit)
        || overcommit.is_ok_and(|mode| mode.trim() == "2"))
}
