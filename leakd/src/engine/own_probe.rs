//! A probe in functions of leakd's own program, for a process that runs it: what
//! it adds to a call is the price of a trap alone.

use std::fs::File;
use std::io;

use super::{Engine, EngineError, system};
use crate::bpf::features::ProbeMethod;
use crate::bpf::link::{self, Link, Places};
use crate::bpf::program::{Program, ProgramLoader, UprobeAttach};
use crate::process;

/// An empty program, ready to be put in.
#[derive(Debug)]
pub(crate) struct OwnProbe {
    program: Program,
    file: File,
}

impl Engine {
    /// Loads it; the engine's object must live as long as it.
    pub(crate) fn own_probe(&self) -> Result<OwnProbe, EngineError> {
        let attach = match self.programs.method {
            ProbeMethod::Perf => UprobeAttach::Perf,
            ProbeMethod::Session | ProbeMethod::Multi => UprobeAttach::Multi,
        };
        let program = ProgramLoader::new(&self.object)?.load("floor", attach)?;
        let file = File::open("/proc/self/exe").map_err(system("leakd's own program"))?;
        Ok(OwnProbe { program, file })
    }
}

impl OwnProbe {
    /// Puts it in at the entry of a function until the link is dropped;
    /// `address`: that of the function here.
    pub(crate) fn put_in(&self, address: u64, pid: u32) -> Result<Link, EngineError> {
        let mapping = process::mappings(std::process::id())?
            .into_iter()
            .find(|mapping| (mapping.begin..mapping.end).contains(&address))
            .ok_or_else(|| io::Error::other("leakd's own code is mapped nowhere"))
            .map_err(system("the canary's functions"))?;
        let mut places = Places::default();
        places.push(address - mapping.begin + mapping.offset, 0);
        link::attach(&self.program, &self.file, &places, pid, false)
            .map_err(system("a probe in the canary"))
    }
}
