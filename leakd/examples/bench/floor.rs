//! Empty programs in the place of leakd's, at the same places.

use anyhow::{Context, Result};
use leakd::bpf::features::{ProbeMethod, UprobePrograms, tracepoint_field};
use leakd::bpf::object::BpfObject;
use leakd::bpf::program::{ProgramLoader, UprobeAttach};
use leakd::engine::objects::CodeObjects;
use leakd::engine::probes::Probes;
use leakd::process::mappings;

/// The name of the empty program.
const PROGRAM: &str = "floor";

/// The floor: what the traps alone cost.
#[derive(Debug)]
pub struct Floor {
    programs: UprobePrograms,
    objects: CodeObjects,
    _object: BpfObject,
}

impl Floor {
    /// Loads the empty program in the ways in which leakd's are.
    pub fn load(method: ProbeMethod) -> Result<Self> {
        let offset = tracepoint_field("sched", "sched_process_fork", "child_pid")
            .context("the format of sched:sched_process_fork cannot be read")?;
        let object = BpfObject::load(offset)?;
        let loader = ProgramLoader::new(&object)?;
        let load = |attach| loader.load(PROGRAM, attach);
        let programs = match method {
            ProbeMethod::Session => UprobePrograms {
                method,
                allocate: load(UprobeAttach::Session)?,
                allocate_return: None,
                free: load(UprobeAttach::Multi)?,
            },
            ProbeMethod::Multi | ProbeMethod::Perf => {
                let attach = match method {
                    ProbeMethod::Perf => UprobeAttach::Perf,
                    _ => UprobeAttach::Multi,
                };
                UprobePrograms {
                    method,
                    allocate: load(attach)?,
                    allocate_return: Some(load(attach)?),
                    free: load(attach)?,
                }
            }
        };
        Ok(Self { programs, objects: CodeObjects::new(Vec::new()), _object: object })
    }

    /// Attaches it to all that leakd would attach to.
    pub fn attach(&mut self, pid: u32) -> Result<Probes> {
        let mut probes = Probes::default();
        for mapping in mappings(pid)? {
            // The vdso and its like are no files.
            let Ok(object) = self.objects.open(pid, &mapping) else { continue };
            if !object.discovery.is_empty() {
                probes.attach(&self.programs, &object, 0, pid)?;
            }
        }
        anyhow::ensure!(!probes.is_empty(), "no allocator was found in process {pid}");
        Ok(probes)
    }
}
