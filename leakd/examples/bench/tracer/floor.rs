//! Empty programs in the place of leakd's, at the same places.

use std::sync::Arc;

use anyhow::Result;
use leakd::bpf::features::{Needs, load_object};
use leakd::bpf::features::{ProbeMethod, UprobePrograms};
use leakd::bpf::link::{self, Link, Places};
use leakd::bpf::object::BpfObject;
use leakd::bpf::program::{ProgramLoader, UprobeAttach};
use leakd::engine::objects::{CodeObject, CodeObjects};
use leakd::engine::probes::Probes;
use leakd::process::mappings;
use leakd_common::cookie::Function;

use super::{Attached, Cost, FLOOR, Options, Told, Tracer, Way};

/// The name of the empty program.
const PROGRAM: &str = "floor";

/// Where leakd probes a function, and where that function begins.
#[derive(Debug)]
pub struct Place {
    object: Arc<CodeObject>,
    /// Offset in the file of the probed instruction.
    pub file_offset: u64,
    /// Offset in the file of the function's first instruction.
    pub entry_offset: u64,
}

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
        let object = BpfObject::load(None, 1)?;
        let loader = ProgramLoader::new(&object)?;
        let load = |attach| loader.load(PROGRAM, attach);
        let programs = match method {
            ProbeMethod::Session => UprobePrograms {
                method,
                allocate: load(UprobeAttach::Session)?,
                allocate_return: None,
                free: load(UprobeAttach::Multi)?,
                realloc_checked: None,
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
                    realloc_checked: None,
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
            let Ok(opened) = self.objects.open(pid, &mapping) else { continue };
            let object = opened.object;
            if !object.discovery.is_empty() {
                probes.attach(&self.programs, &object, 0, pid)?;
            }
        }
        anyhow::ensure!(!probes.is_empty(), "no allocator was found in process {pid}");
        Ok(probes)
    }

    /// Finds the first function of a kind in what the process has mapped.
    pub fn place(&mut self, pid: u32, function: Function) -> Result<Option<Place>> {
        for mapping in mappings(pid)? {
            let Ok(opened) = self.objects.open(pid, &mapping) else { continue };
            let object = opened.object;
            let mut probes = object.discovery.allocators.iter().flat_map(|one| &one.probes);
            let found = probes.find(|probe| probe.function == function).map(|probe| {
                let moved = probe.placement.address - probe.address;
                (probe.placement.file_offset, probe.placement.file_offset - moved)
            });
            if let Some((file_offset, entry_offset)) = found {
                return Ok(Some(Place { object, file_offset, entry_offset }));
            }
        }
        Ok(None)
    }

    /// Attaches the empty program at one offset of the place's file.
    pub fn attach_at(&self, pid: u32, place: &Place, offset: u64) -> Result<Link> {
        let mut places = Places::default();
        places.push(offset, 0);
        Ok(link::attach(&self.programs.free, place.object.file.file(), &places, pid, false)?)
    }
}

/// [`Floor`] as a tracer; loaded when it is first wanted.
#[derive(Debug, Default)]
pub struct FloorTracer(Option<Floor>);

impl FloorTracer {
    fn floor(&mut self) -> Result<&mut Floor> {
        let floor = match self.0.take() {
            Some(floor) => floor,
            None => Floor::load(method()?)?,
        };
        Ok(self.0.insert(floor))
    }
}

/// The best way to probe that the kernel has.
fn method() -> Result<ProbeMethod> {
    // In an object of its own: program arrays are bound by the first load.
    let object = load_object(Needs { check_frees: false, follow_forks: false })?;
    Ok(UprobePrograms::load(&object, None, false)?.method)
}

impl Tracer for FloorTracer {
    fn name(&self) -> &'static str {
        FLOOR
    }

    fn about(&self) -> &'static str {
        "empty programs where leakd probes: what the traps alone cost"
    }

    fn version(&self) -> Result<String, String> {
        Ok(String::new())
    }

    fn way(&self) -> Way {
        Way::Attach
    }

    fn attach(&mut self, pid: u32, _options: &Options) -> Result<Box<dyn Attached>> {
        Ok(Box::new(Probed(self.floor()?.attach(pid)?)))
    }
}

#[derive(Debug)]
struct Probed(Probes);

impl Attached for Probed {
    fn cost(&self) -> Cost {
        Cost::default()
    }

    fn end(mut self: Box<Self>) -> Result<Told> {
        self.0.detach();
        Ok(Told::default())
    }
}
