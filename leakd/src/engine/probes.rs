//! The probes of one target: which places of an object, in which order, and
//! the links that hold them.

use std::io;

use leakd_common::cookie::{CUSTOM_OWNER, Cookie, Function};

use super::objects::CodeObject;
use crate::allocator::{Cost, Probe};
use crate::bpf::features::UprobePrograms;
use crate::bpf::link::{self, Link, Places};
use crate::process;

/// Allocators that one target may have, each a heap of its own.
const OWNERS: u8 = CUSTOM_OWNER;

/// A function under probe, for the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbedFunction {
    /// Its symbol.
    pub symbol: String,
    /// The file it is in.
    pub module: String,
    /// The instruction that is single-stepped there, where there is no
    /// cheaper place.
    pub single_stepped: Option<String>,
}

/// A function that allocates and is not under probe all the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnprobedFunction {
    /// Its symbol.
    pub symbol: String,
    /// The file it is in.
    pub module: String,
    /// Why.
    pub reason: &'static str,
}

/// Why a function that may throw is left alone. The unwinder finds the kernel's
/// trampoline where the return address was, and ends the program: so did a test
/// (`by_exception`) on libjemalloc and libtcmalloc.
const MAY_THROW: &str = "the kernel may refuse this process memory (ulimit -v, ulimit -d or \
                         vm.overcommit_memory=2), and an exception that operator new throws \
                         under a return probe would end it";

/// The links of one target.
#[derive(Debug, Default)]
pub struct Probes {
    links: Vec<Link>,
    owners: u8,
    functions: Vec<ProbedFunction>,
    unprobed: Vec<UnprobedFunction>,
}

impl Probes {
    /// What is under probe.
    pub fn functions(&self) -> &[ProbedFunction] {
        &self.functions
    }

    /// What allocates and is not, though it could be.
    pub fn unprobed(&self) -> &[UnprobedFunction] {
        &self.unprobed
    }

    /// Whether nothing has ever been under probe.
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    /// Attaches to all functions of an object that allocate or free; false if
    /// it has none.
    pub fn attach(
        &mut self,
        programs: &UprobePrograms,
        object: &CodeObject,
        slot: u16,
        pid: u32,
    ) -> io::Result<bool> {
        let mut wanted: Vec<(&Probe, u8)> = Vec::new();
        for allocator in &object.discovery.allocators {
            if self.owners == OWNERS {
                return Err(io::Error::other(format!("it has more than {OWNERS} allocators")));
            }
            wanted.extend(allocator.probes.iter().map(|probe| (probe, self.owners)));
            self.owners += 1;
        }
        wanted.extend(object.discovery.custom.iter().map(|probe| (probe, CUSTOM_OWNER)));
        let module = object.file.path().display().to_string();
        if wanted.iter().any(|(probe, _)| may_throw(probe)) && memory_is_limited(pid) {
            for (probe, _) in wanted.extract_if(.., |(probe, _)| may_throw(probe)) {
                let (symbol, module) = (probe.symbol.clone(), module.clone());
                self.unprobed.push(UnprobedFunction { symbol, module, reason: MAY_THROW });
            }
        }
        if wanted.is_empty() {
            return Ok(false);
        }
        // The kernel sets the probes of a link one by one. A block must never be
        // recorded while what ends it is not under probe yet: what frees comes
        // first, what both frees and allocates next, plain malloc last.
        wanted.sort_by_key(|(probe, _)| match probe.function {
            Function::Realloc | Function::Reallocarray => 0,
            Function::Malloc | Function::New => 2,
            _ => 1,
        });
        let (mut allocate, mut free) = (Places::default(), Places::default());
        let mut reallocate = Places::default();
        for (probe, owner) in wanted {
            let place = &probe.placement;
            let cookie = Cookie::new(place.function, place.arguments, owner, slot);
            let places = if place.function.frees() { &mut free } else { &mut allocate };
            places.push(place.file_offset, cookie.0);
            if matches!(place.function, Function::Realloc | Function::Reallocarray) {
                reallocate.push(place.file_offset, cookie.0);
            }
            self.functions.push(ProbedFunction {
                symbol: probe.symbol.clone(),
                module: module.clone(),
                single_stepped: match &place.cost {
                    Cost::SingleStepped { instruction } => Some(instruction.clone()),
                    Cost::Emulated | Cost::Unknown => None,
                },
            });
        }
        let file = object.file.file();
        if !free.is_empty() {
            self.links.push(link::attach(&programs.free, file, &free, pid, false)?);
        }
        if let Some(checked) = programs.realloc_checked.as_ref().filter(|_| !reallocate.is_empty())
        {
            self.links.push(link::attach(checked, file, &reallocate, pid, false)?);
        }
        if !allocate.is_empty() {
            if let Some(at_return) = &programs.allocate_return {
                self.links.push(link::attach(at_return, file, &allocate, pid, true)?);
            }
            self.links.push(link::attach(&programs.allocate, file, &allocate, pid, false)?);
        }
        Ok(true)
    }

    /// Takes all probes out. What is recorded from now on may lack its end: the
    /// ledger was read before, or is not to be trusted that far.
    pub fn detach(&mut self) {
        link::close_all(self.links.drain(..));
    }

    /// The links, to be closed together with those of others.
    pub(super) fn take_links(&mut self) -> Vec<Link> {
        std::mem::take(&mut self.links)
    }
}

/// operator new throws where there is no memory. (Where it only passes calls on
/// to malloc, it is not probed; its nothrow forms count as malloc.)
fn may_throw(probe: &Probe) -> bool {
    probe.function == Function::New
}

fn memory_is_limited(pid: u32) -> bool {
    process::memory_is_limited(pid).unwrap_or_else(|error| {
        tracing::debug!("{error}: operator new is taken to throw");
        true
    })
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.detach();
    }
}
