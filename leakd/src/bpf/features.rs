//! What this kernel can do, probed once at start.

use std::fs;

use super::link;
use super::object::{BpfObject, ObjectError};
use super::program::{Program, ProgramError, ProgramLoader, UprobeAttach};

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
}

impl UprobePrograms {
    /// Loads the programs; `limit` keeps from trying the methods better than it.
    pub fn load(object: &BpfObject, limit: Option<ProbeMethod>) -> Result<Self, ProgramError> {
        let loader = ProgramLoader::new(object)?;
        let limit = limit.unwrap_or(ProbeMethod::Session);
        if limit == ProbeMethod::Session {
            {
                let allocate = loader.load("allocate_session", UprobeAttach::Session)?;
                if link::is_supported(&allocate) {
                    let free = loader.load("free_entry", UprobeAttach::Multi)?;
                    let method = ProbeMethod::Session;
                    return Ok(Self { method, allocate, allocate_return: None, free });
                }
            }
        }
        if limit != ProbeMethod::Perf {
            let free = loader.load("free_entry", UprobeAttach::Multi)?;
            if link::is_supported(&free) {
                return Ok(Self {
                    method: ProbeMethod::Multi,
                    allocate: loader.load("allocate_entry", UprobeAttach::Multi)?,
                    allocate_return: Some(loader.load("allocate_return", UprobeAttach::Multi)?),
                    free,
                });
            }
        }
        Ok(Self {
            method: ProbeMethod::Perf,
            allocate: loader.load("allocate_entry", UprobeAttach::Perf)?,
            allocate_return: Some(loader.load("allocate_return", UprobeAttach::Perf)?),
            free: loader.load("free_entry", UprobeAttach::Perf)?,
        })
    }
}

/// The tracing file system, where it is mounted.
fn tracing_file(path: &str) -> Option<String> {
    ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .iter()
        .find_map(|root| fs::read_to_string(format!("{root}/{path}")).ok())
}

/// Where a field lies in a tracepoint's record, by the event's own format.
pub fn tracepoint_field(category: &str, event: &str, field: &str) -> Option<u32> {
    let format = tracing_file(&format!("events/{category}/{event}/format"))?;
    format.lines().find_map(|line| {
        let mut parts = line.trim().split(';');
        let name = parts.next()?.rsplit([' ', '\t']).next()?;
        (name == field).then_some(())?;
        parts.next()?.trim().strip_prefix("offset:")?.parse().ok()
    })
}

/// Loads the object and attaches what follows the life of targets.
pub fn load_object() -> Result<BpfObject, ObjectError> {
    const SCHED: &str = "sched";
    const FORK: &str = "sched_process_fork";
    let offset = tracepoint_field(SCHED, FORK, "child_pid")
        .ok_or_else(|| ObjectError::NoTracing(format!("{SCHED}:{FORK}")))?;
    let mut object = BpfObject::load(offset)?;
    for (program, event) in [
        ("process_fork", FORK),
        ("process_exec", "sched_process_exec"),
        ("process_exit", "sched_process_exit"),
    ] {
        object.attach_tracepoint(program, SCHED, event)?;
    }
    Ok(object)
}
