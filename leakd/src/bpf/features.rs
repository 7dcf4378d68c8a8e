//! What this kernel can do, probed once at start.

use leakd_common::bad_free::RECENT_FREES;

use super::link;
use super::object::{BpfObject, ObjectError};
use super::program::{Program, ProgramError, ProgramLoader, UprobeAttach};
use crate::btf::Btf;

/// How probes are attached on this kernel, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeMethod {
    /// Entry and return in one link; an entry can do without its return.
    Session,
    /// Many places in one link.
    Multi,
    /// One perf event for each place.
    Perf,
}

/// The uprobe programs, loaded for the best method that the kernel has.
#[derive(Debug)]
pub struct UprobePrograms {
    /// How they attach.
    pub method: ProbeMethod,
    /// Entry of the allocating functions; with sessions, their return as well.
    pub allocate: Program,
    /// Return of the allocating functions, where there are no sessions.
    pub allocate_return: Option<Program>,
    /// Entry of the freeing functions.
    pub free: Program,
    /// Entry of `realloc` and its like besides, where frees are looked at.
    pub realloc_checked: Option<Program>,
}

impl UprobePrograms {
    /// Loads the programs; `limit` keeps from trying the methods better than it.
    /// `check_frees`: those that look at each free.
    pub fn load(
        object: &BpfObject,
        limit: Option<ProbeMethod>,
        check_frees: bool,
    ) -> Result<Self, ProgramError> {
        let loader = ProgramLoader::new(object)?;
        let method = best_method(&loader, limit.unwrap_or(ProbeMethod::Session));
        let (allocate, attach) = match method {
            ProbeMethod::Session => ("allocate_session", UprobeAttach::Session),
            ProbeMethod::Multi => ("allocate_entry", UprobeAttach::Multi),
            ProbeMethod::Perf => ("allocate_entry", UprobeAttach::Perf),
        };
        let other = match method {
            ProbeMethod::Session | ProbeMethod::Multi => UprobeAttach::Multi,
            ProbeMethod::Perf => UprobeAttach::Perf,
        };
        let allocate_return = match method {
            ProbeMethod::Session => None,
            ProbeMethod::Multi | ProbeMethod::Perf => Some(loader.load("allocate_return", other)?),
        };
        let realloc_checked =
            check_frees.then(|| loader.load("realloc_checked", other)).transpose()?;
        Ok(Self {
            method,
            allocate: loader.load(allocate, attach)?,
            allocate_return,
            free: loader.load(if check_frees { "free_checked" } else { "free_entry" }, other)?,
            realloc_checked,
        })
    }
}

/// Tries the methods with a program that does nothing. The real ones cannot be
/// used for it: their program arrays are bound to one attach type from the
/// first load on.
fn best_method(loader: &ProgramLoader, limit: ProbeMethod) -> ProbeMethod {
    let supported =
        |attach| loader.load("floor", attach).is_ok_and(|program| link::is_supported(&program));
    if limit == ProbeMethod::Session && supported(UprobeAttach::Session) {
        ProbeMethod::Session
    } else if limit != ProbeMethod::Perf && supported(UprobeAttach::Multi) {
        ProbeMethod::Multi
    } else {
        ProbeMethod::Perf
    }
}

/// What of the object is needed.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// Room for the frees of late.
    pub check_frees: bool,
    /// Being told of what targets make.
    pub follow_forks: bool,
}

/// Loads the object and attaches what follows the life of targets.
pub fn load_object(needs: Needs) -> Result<BpfObject, ObjectError> {
    let Needs { check_frees, follow_forks } = needs;
    let task_pid = follow_forks.then(task_pid_offset).transpose()?;
    let mut object = BpfObject::load(task_pid, if check_frees { RECENT_FREES } else { 1 })?;
    if follow_forks {
        object.attach_tracepoint("process_fork", "sched_process_fork")?;
    }
    object.attach_tracepoint("process_exec", "sched_process_exec")?;
    object.attach_tracepoint("process_exit", "sched_process_exit")?;
    Ok(object)
}

/// Where `struct task_struct` has its `pid`, in bytes.
fn task_pid_offset() -> Result<u32, ObjectError> {
    let types = Btf::of_kernel().map_err(|error| ObjectError::Fork(error.to_string()))?;
    let pid = types.member("task_struct", "pid").filter(|pid| pid.size == 4);
    let missing = || ObjectError::Fork("this kernel's BTF has no task_struct.pid".to_owned());
    pid.map(|pid| pid.offset).ok_or_else(missing)
}
