//! The BPF object, loaded: its maps and its tracepoint programs.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::maps::{Map, MapData};
use aya::programs::RawTracePoint;
use aya::programs::raw_trace_point::RawTracePointLink;
use aya::{Ebpf, EbpfLoader};

use super::diagnostics::{self, Diagnostics};

/// The BPF object that the build script made.
pub static BYTES: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/leakd.bpf.o"));

/// Why the BPF object could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// aya refused it, or the kernel did.
    #[error("cannot load the BPF maps and programs: {0}")]
    Load(#[from] aya::EbpfError),
    /// A tracepoint program failed.
    #[error("cannot attach to the tracepoint {event}: {source}")]
    Tracepoint {
        /// The event.
        event: String,
        /// The cause.
        source: aya::programs::ProgramError,
    },
    /// The kernel's types do not tell what the programs need.
    #[error("cannot follow the processes that targets make: {0}")]
    Fork(String),
    /// The programs' log cannot be read.
    #[error("cannot read what the BPF programs log: {0}")]
    Diagnostics(#[from] aya_log::Error),
    /// The object and this program do not fit together.
    #[error("the BPF object has no {0}: leakd was built from mixed sources")]
    Missing(String),
}

/// The loaded object. Dropping it detaches its tracepoints and frees its maps.
#[derive(Debug)]
pub struct BpfObject {
    ebpf: Ebpf,
    /// What holds the tracepoint programs at their tracepoints.
    links: Vec<RawTracePointLink>,
    /// None where the log lets nothing of it through.
    diagnostics: Option<Diagnostics>,
}

impl BpfObject {
    /// Makes the maps. `task_pid_offset` is where `struct task_struct` has its
    /// `pid`, for `process_fork` alone; so many blocks that were freed are remembered.
    pub fn load(task_pid_offset: Option<u32>, recent_frees: u32) -> Result<Self, ObjectError> {
        let level = diagnostics::level();
        let mut ebpf = EbpfLoader::new()
            // Nothing in the object is relocated by the kernel's own types.
            .btf(None)
            .map_max_entries("RECENT_FREES", recent_frees)
            .override_global("TASK_PID_OFFSET", &task_pid_offset.unwrap_or_default(), true)
            .override_global(aya_log::LEVEL, &level, true)
            .load(BYTES)?;
        let diagnostics = if level > 0 { Some(Diagnostics::take(&mut ebpf)?) } else { None };
        Ok(Self { ebpf, links: Vec::new(), diagnostics })
    }

    /// Passes on what the programs said since the last time, to `tracing`.
    pub fn pass_on_diagnostics(&mut self) {
        if let Some(diagnostics) = &mut self.diagnostics {
            diagnostics.pass_on();
        }
    }

    /// Loads and attaches a tracepoint program; it stays until the object goes.
    pub fn attach_tracepoint(&mut self, program: &str, event: &str) -> Result<(), ObjectError> {
        let failed = |source| ObjectError::Tracepoint { event: event.to_owned(), source };
        let program: &mut RawTracePoint = self
            .ebpf
            .program_mut(program)
            .ok_or_else(|| ObjectError::Missing(program.to_owned()))?
            .try_into()
            .map_err(failed)?;
        program.load().map_err(failed)?;
        let link = program.attach(event).map_err(failed)?;
        self.links.push(program.take_link(link).map_err(failed)?);
        Ok(())
    }

    /// Takes the programs from their tracepoints, side by side: the kernel waits
    /// for each.
    pub fn detach_tracepoints(&mut self) {
        side_by_side(std::mem::take(&mut self.links));
    }

    /// The descriptor of a tracepoint program that is loaded.
    pub fn tracepoint(&self, program: &str) -> Result<BorrowedFd<'_>, ObjectError> {
        let missing = || ObjectError::Missing(format!("loaded program {program}"));
        let program = self.ebpf.program(program).ok_or_else(missing)?;
        program.fd().map(|fd| fd.as_fd()).map_err(|_| missing())
    }

    /// The descriptor of a map.
    pub fn map(&self, name: &str) -> Result<BorrowedFd<'_>, ObjectError> {
        self.ebpf
            .map(name)
            .and_then(data)
            .map(|data| data.fd().as_fd())
            .ok_or_else(|| ObjectError::Missing(format!("map {name}")))
    }

    /// A handle of a map that outlives the object.
    pub fn owned_map(&self, name: &str) -> Result<OwnedFd, ObjectError> {
        self.map(name)?
            .try_clone_to_owned()
            .map_err(|error| ObjectError::Missing(format!("handle of {name}: {error}")))
    }

    /// Every map, by name.
    pub fn maps(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        let log = self.diagnostics.as_ref().map(|log| (diagnostics::MAP, log.map()));
        let maps = self.ebpf.maps();
        maps.filter_map(|(name, map)| Some((name, data(map)?.fd().as_fd()))).chain(log)
    }
}

fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::ArrayOfMaps(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::ProgramArray(data)
        | Map::RingBuf(data) => Some(data),
        _ => None,
    }
}

/// Drops things on threads of their own, as far as there can be any.
fn side_by_side<T: Send>(mut things: Vec<T>) {
    /// So many at a time.
    const AT_ONCE: usize = 16;
    while !things.is_empty() {
        let rest = things.split_off(things.len().min(AT_ONCE));
        let now = std::mem::replace(&mut things, rest);
        std::thread::scope(|scope| {
            for thing in now {
                // Where no thread can be had, the closure is dropped here, and
                // what it holds with it.
                let _ = std::thread::Builder::new().spawn_scoped(scope, move || drop(thing));
            }
        });
    }
}
