//! The BPF object for the kernel's memory, loaded and attached.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{Array, Map, MapData, RingBuf};
use aya::programs::Program;
use aya::programs::kprobe::KProbeLink;
use aya::programs::raw_trace_point::RawTracePointLink;
use aya::{Ebpf, EbpfLoader};
use leakd_common::kernel::{CACHE_NAME, KernelSite, WANTED_CACHES, cache_name_hash};
use leakd_common::site::OVERFLOW_SITE;

use super::caches::Wanted;
use super::hooks::{self, Hook, Way};
use super::symbols::Symbols;
use super::{KernelError, Settings};
use crate::bpf::{program_info, sys};
use crate::btf::Btf;
use crate::engine::plain::bytes_of;
use crate::engine::snapshot::for_each;
use crate::report::kernel::UnseenFree;

/// The BPF object that the build script made.
static BYTES: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/leakd-kernel.bpf.o"));

/// The object. Dropping it detaches its programs and frees its maps.
#[derive(Debug)]
pub struct KernelObject {
    /// Of [`Self::attached`], while a window is open.
    links: Vec<Link>,
    ebpf: Ebpf,
    /// What is under probe, in the order in which it was attached.
    attached: Vec<Hook>,
}

/// A program's link to its place; dropping it takes the program out.
#[derive(Debug)]
#[allow(dead_code, reason = "held")]
enum Link {
    Tracepoint(RawTracePointLink),
    Probe(KProbeLink),
}

/// What the programs have missed, because an interrupt came while one ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// Allocations that are missing.
    pub allocations: u64,
    /// Frees that no program may have seen, at most: the second program at a
    /// tracepoint sees what the first one misses, unless both are interrupted.
    pub frees: u64,
}

impl KernelObject {
    /// Makes the maps.
    pub fn load(settings: &Settings, btf: &Btf, symbols: &Symbols) -> Result<Self, KernelError> {
        let cache = |member| btf.member("kmem_cache", member).map(|member| member.offset);
        let (name, size) = (cache("name"), cache("size"));
        let area = |member| btf.member("vmap_area", member).map(|member| member.offset);
        let (start, end) = (area("va_start"), area("va_end"));
        let stack = btf.member("task_struct", "stack").map(|member| member.offset);
        let (interrupt, soft) = interrupt_code(symbols);
        let by_cache = u32::from(matches!(settings.wanted, Wanted::Caches(_)));
        let (least, most) = (*settings.bytes.start(), *settings.bytes.end());
        let mut ebpf = EbpfLoader::new()
            // Nothing in the object is relocated by the kernel's own types.
            .btf(None)
            .override_global("CACHE_NAME_OFFSET", &name.unwrap_or_default(), true)
            .override_global("CACHE_SIZE_OFFSET", &size.unwrap_or_default(), true)
            .override_global("AREA_START_OFFSET", &start.unwrap_or_default(), true)
            .override_global("AREA_END_OFFSET", &end.unwrap_or_default(), true)
            .override_global("TASK_STACK_OFFSET", &stack.unwrap_or_default(), true)
            .override_global("INTERRUPT_BEGIN", &interrupt.0, true)
            .override_global("INTERRUPT_BYTES", &interrupt.1, true)
            .override_global("SOFT_INTERRUPT_BEGIN", &soft.0, true)
            .override_global("SOFT_INTERRUPT_BYTES", &soft.1, true)
            .override_global("LEAST_BYTES", &least, true)
            .override_global("MOST_BYTES", &most, true)
            .override_global("BY_CACHE", &by_cache, true)
            .map_max_entries("BLOCKS", settings.quota)
            .load(BYTES)?;
        if let Wanted::Caches(names) = &settings.wanted {
            want(&mut ebpf, names)?;
        }
        let object = Self { links: Vec::new(), ebpf, attached: Vec::new() };
        object.make_overflow_site()?;
        Ok(object)
    }

    /// Makes the site for what finds no room.
    fn make_overflow_site(&self) -> Result<(), KernelError> {
        let overflow = KernelSite {
            totals: leakd_common::site::Site { announced: 1, ..leakd_common::site::Site::EMPTY },
            ..KernelSite::EMPTY
        };
        let key = OVERFLOW_SITE.to_ne_bytes();
        Ok(sys::map_update(self.map("SITES")?, &key, bytes_of(&overflow), 0)?)
    }

    /// Attaches what can be; a kind of which a part fails is left out, and its
    /// way then says why. Gives the ways to free blocks that are not under probe.
    pub fn attach(
        &mut self,
        ways: &mut [Way],
        hidden: &[(Hook, Option<String>)],
    ) -> Vec<UnseenFree> {
        let mut unseen = Vec::new();
        for (hook, objection) in hidden {
            let reason =
                objection.clone().or_else(|| self.attach_one(*hook).err().map(|e| e.to_string()));
            if let Some(reason) = reason {
                unseen.push(UnseenFree { function: hook.place.to_owned(), reason });
            }
        }
        for way in ways {
            let Ok(hooks) = &way.hooks else { continue };
            let failed = hooks.iter().find_map(|hook| self.attach_one(*hook).err());
            if let Some(error) = failed {
                way.hooks = Err(error.to_string());
            }
        }
        unseen
    }

    fn attach_one(&mut self, hook: Hook) -> Result<(), KernelError> {
        if self.attached.iter().any(|other| other.program == hook.program) {
            return Ok(());
        }
        self.load_one(hook)?;
        self.link(hook)?;
        self.attached.push(hook);
        Ok(())
    }

    /// Puts a program that is loaded into its place.
    fn link(&mut self, hook: Hook) -> Result<(), KernelError> {
        let missing = || KernelError::Missing(hook.program.to_owned());
        let program = self.ebpf.program_mut(hook.program).ok_or_else(missing)?;
        let link = match program {
            Program::RawTracePoint(program) => program
                .attach(hook.place)
                .and_then(|id| program.take_link(id))
                .map(Link::Tracepoint),
            Program::KProbe(program) => {
                program.attach(hook.place, 0).and_then(|id| program.take_link(id)).map(Link::Probe)
            }
            _ => return Err(missing()),
        };
        let failed = |source| KernelError::Program { program: hook.program.to_owned(), source };
        self.links.push(link.map_err(failed)?);
        Ok(())
    }

    /// Takes all programs out of their places; they stay loaded.
    pub fn detach(&mut self) {
        // What allocates goes before what frees.
        while self.links.pop().is_some() {}
    }

    /// Puts them in again.
    ///
    /// # Errors
    /// If that fails with any; those before it are in.
    pub fn attach_again(&mut self) -> Result<(), KernelError> {
        for hook in self.attached.clone() {
            self.link(hook)?;
        }
        Ok(())
    }

    /// Forgets all blocks and call sites. No program may be in its place.
    pub fn clear(&self) -> Result<(), KernelError> {
        for name in ["BLOCKS", "SITES"] {
            let map = self.map(name)?;
            let (mut keys, mut count) = (Vec::new(), 0);
            for_each(map, |key, _| {
                keys.extend_from_slice(key);
                count += 1;
            })?;
            if count > 0 {
                sys::map_delete_batch(map, &keys, count)?;
            }
        }
        self.make_overflow_site()
    }

    /// For how long all programs ran while statistics were taken, in nanoseconds.
    pub fn program_time_ns(&self) -> Result<u64, KernelError> {
        let time = |hook: &Hook| -> Result<u64, KernelError> {
            let missing = || KernelError::Missing(hook.program.to_owned());
            let program = self.ebpf.program(hook.program).ok_or_else(missing)?;
            let fd = program.fd().map_err(|_| missing())?;
            Ok(program_info::run_time_ns(fd.as_fd())?)
        };
        self.attached.iter().map(time).sum()
    }

    fn load_one(&mut self, hook: Hook) -> Result<&mut Program, KernelError> {
        let missing = || KernelError::Missing(hook.program.to_owned());
        let program = self.ebpf.program_mut(hook.program).ok_or_else(missing)?;
        match program {
            Program::RawTracePoint(program) => program.load(),
            Program::KProbe(program) => program.load(),
            _ => return Err(missing()),
        }
        .map_err(|source| KernelError::Program { program: hook.program.to_owned(), source })?;
        Ok(program)
    }

    /// Loads every program, to see that the kernel takes it; gives the number of
    /// instructions that the verifier looked at.
    pub fn load_all(&mut self, symbols: &Symbols) -> Result<BTreeMap<String, u32>, KernelError> {
        let mut counts = BTreeMap::new();
        for hook in hooks::all(symbols) {
            if counts.contains_key(hook.program) {
                continue;
            }
            let missing = |_| KernelError::Missing(hook.program.to_owned());
            let program = self.load_one(hook)?;
            let count =
                program_info::verified_instructions(program.fd().map_err(missing)?.as_fd())?;
            counts.insert(hook.program.to_owned(), count.unwrap_or_default());
        }
        Ok(counts)
    }

    /// From now on blocks that are handed out are recorded, or no more.
    pub fn record(&mut self, on: bool) -> Result<(), KernelError> {
        let missing = || KernelError::Missing("RECORDING".to_owned());
        let map = self.ebpf.map_mut("RECORDING").ok_or_else(missing)?;
        let mut map: Array<_, u32> = Array::try_from(map).map_err(|_| missing())?;
        map.set(0, u32::from(on), 0).map_err(|_| missing())
    }

    /// What was missed so far.
    pub fn missed(&self) -> Result<Missed, KernelError> {
        let of = |name: &str| -> Result<u64, KernelError> {
            let missing = || KernelError::Missing(name.to_owned());
            let program = self.ebpf.program(name).ok_or_else(missing)?;
            let fd = program.fd().map_err(|_| missing())?;
            Ok(program_info::missed_runs(fd.as_fd())?)
        };
        let mut missed = Missed::default();
        for Hook { program: name, .. } in &self.attached {
            let count = of(name)?;
            let again = format!("{name}_again");
            if name.ends_with("_again") {
                continue;
            } else if self.attached.iter().any(|other| other.program == again) {
                missed.frees += count.min(of(&again)?);
            } else if name.contains("free") {
                missed.frees += count;
            } else {
                missed.allocations += count;
            }
        }
        Ok(missed)
    }

    /// The descriptor of a hash map or of the counters.
    pub fn map(&self, name: &str) -> Result<BorrowedFd<'_>, KernelError> {
        match self.ebpf.map(name) {
            Some(Map::HashMap(data) | Map::PerCpuArray(data)) => Ok(data.fd().as_fd()),
            _ => Err(KernelError::Missing(name.to_owned())),
        }
    }

    /// The ring of announcements; it can be taken once.
    pub fn ring(&mut self) -> Result<RingBuf<MapData>, KernelError> {
        let missing = || KernelError::Missing("RING".to_owned());
        let map = self.ebpf.take_map("RING").ok_or_else(missing)?;
        RingBuf::try_from(map).map_err(|_| missing())
    }
}

/// Tells the programs the names of the caches that are wanted.
fn want(ebpf: &mut Ebpf, names: &[String]) -> Result<(), KernelError> {
    let missing = || KernelError::Missing("WANTED_NAMES".to_owned());
    let map = ebpf.map_mut("WANTED_NAMES").ok_or_else(missing)?;
    let mut map: Array<_, u64> = Array::try_from(map).map_err(|_| missing())?;
    for (index, name) in names.iter().take(WANTED_CACHES).enumerate() {
        map.set(index as u32, name_hash(name), 0).map_err(|_| missing())?;
    }
    Ok(())
}

fn name_hash(name: &str) -> u64 {
    let mut bytes = [0; CACHE_NAME];
    // The last one is a zero.
    for (to, from) in bytes[..CACHE_NAME - 1].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    let mut words = [0; CACHE_NAME / 8];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    }
    cache_name_hash(&words)
}

/// First address and bytes of the code that interrupts begin with, and of the
/// function that runs soft interrupts; nothing where the kernel hides them.
///
/// Exceptions lie in front of the interrupts (asm/idtentry.h). They belong to
/// whoever runs into them, as a page fault does.
fn interrupt_code(symbols: &Symbols) -> ((u64, u64), (u64, u64)) {
    let begin = ["asm_common_interrupt", "asm_spurious_interrupt"]
        .into_iter()
        .filter_map(|name| symbols.address(name))
        .min();
    let interrupt = begin
        .zip(symbols.address("__irqentry_text_end"))
        .map_or((0, 0), |(begin, end)| (begin, end.saturating_sub(begin)));
    let soft = symbols
        .function("handle_softirqs")
        .or_else(|| symbols.function("__do_softirq"))
        .map_or((0, 0), |code| (code.start, code.end - code.start));
    (interrupt, soft)
}
