//! Finding the allocators of an object by their symbols.

use std::collections::{HashMap, HashSet};

use leakd_common::cookie::{Arguments, Function};

use super::custom::CustomFunction;
use super::family::{FAMILIES, Family};
use super::forward::Forwarding;
use super::kind::{Kind, MARKERS, kind};
use super::placement::{Emulation, Placement, PlacementError, place};
use crate::elf::{ElfError, ElfObject, FunctionSymbol};

/// Functions that are looked at in one object, of its allocators and of the
/// user's names each. mimalloc, which has the most, has about 80; a program
/// may have several static functions of a custom name. Each may take the
/// decoding of 64 KiB of code.
const MAX_FUNCTIONS: usize = 256;

/// A function to probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The symbol that it was found by; aliases of it are left out. As it
    /// stands in the file: names of ours, or one that the user gave.
    pub symbol: String,
    /// What the function does. What the cookie must say is in
    /// [`Placement::function`]: it differs where operands have moved.
    pub function: Function,
    /// Where a custom function has its operands; for the cookie likewise.
    pub arguments: Arguments,
    /// The address of its entry, before relocation.
    pub address: u64,
    /// Where the probe goes.
    pub placement: Placement,
}

/// A heap: functions that hand out blocks and take back the same ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocator {
    /// Whose it is.
    pub kind: Kind,
    /// What its functions have in front of their names ("", "je_", ...).
    pub prefix: &'static str,
    /// Its functions.
    pub probes: Vec<Probe>,
}

/// Why a function that was found is not probed.
#[derive(Debug, thiserror::Error)]
pub enum SkippedBecause {
    /// Its symbol's address is that of a resolver.
    #[error("it is an indirect function, whose address only the program itself learns")]
    Indirect,
    /// Others see all its calls.
    #[error("it only passes its calls on to probed functions")]
    Forwards,
    /// There is no place for the probe.
    #[error(transparent)]
    NoPlace(#[from] PlacementError),
    /// There are too many of them.
    #[error("the object has more than {MAX_FUNCTIONS} functions of such names")]
    TooMany,
}

/// A function that was found and is not probed.
#[derive(Debug)]
pub struct Skipped {
    /// Its symbol.
    pub symbol: String,
    /// Its address, before relocation.
    pub address: u64,
    /// Why.
    pub because: SkippedBecause,
}

/// What an object has to be probed.
#[derive(Debug, Default)]
pub struct Discovery {
    /// Its allocators; mostly none or one.
    pub allocators: Vec<Allocator>,
    /// The functions that the user named, as far as they are in this object.
    pub custom: Vec<Probe>,
    /// What was left out.
    pub skipped: Vec<Skipped>,
}

impl Discovery {
    /// Whether there is nothing to probe.
    pub fn is_empty(&self) -> bool {
        self.allocators.is_empty() && self.custom.is_empty()
    }
}

/// Finds the functions of an object that hand memory out or take it back.
///
/// An object holds an allocator if it defines both malloc and free, with or
/// without a known prefix: an interposer that defines only one of them passes
/// blocks on that are another object's. In a static program malloc (without
/// prefix) is enough:
/// with musl, free is not linked where nobody calls it. glibc's dynamic loader is none: before
/// 2.26 it exported a minimal malloc, which goes out of use as soon as libc
/// is there.
///
/// # Errors
/// If the symbol tables cannot be read. An object without any is no error:
/// nothing is found in it.
pub fn discover(
    object: &ElfObject,
    custom: &[CustomFunction],
    emulation: Emulation,
) -> Result<Discovery, ElfError> {
    let mut wanted: HashSet<String> = MARKERS.iter().map(|name| (*name).to_owned()).collect();
    wanted.extend(FAMILIES.iter().flat_map(|family| family.functions().map(|(name, _)| name)));
    wanted.extend(custom.iter().map(|custom| custom.symbol.clone()));
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let symbols = object.find_functions(&wanted)?;
    let mut search = Search { object, emulation, symbols: &symbols, found: Discovery::default() };
    search.add_custom(custom);
    if !is_loader(object) {
        search.add_allocators()?;
    }
    Ok(search.found)
}

/// Whether the object is glibc's dynamic loader. musl's loader is its C
/// library and has no such name.
fn is_loader(object: &ElfObject) -> bool {
    object.soname().is_some_and(|name| name.starts_with("ld-linux") || name.starts_with("ld64.so"))
}

/// A function of a family, before it is known whether it is probed.
struct Candidate<'s> {
    symbol: &'s FunctionSymbol,
    function: Function,
    arguments: Arguments,
}

/// The functions of one family.
type Candidates<'s> = (&'static Family, Vec<Candidate<'s>>);

struct Search<'s> {
    object: &'s ElfObject,
    emulation: Emulation,
    symbols: &'s [FunctionSymbol],
    found: Discovery,
}

impl<'s> Search<'s> {
    fn named<'n>(&self, name: &'n str) -> impl Iterator<Item = &'s FunctionSymbol> + use<'s, 'n> {
        self.symbols.iter().filter(move |symbol| symbol.name == name)
    }

    fn skip(&mut self, symbol: &FunctionSymbol, because: SkippedBecause) {
        let (symbol, address) = (symbol.name.clone(), symbol.address);
        self.found.skipped.push(Skipped { symbol, address, because });
    }

    /// Finds the place for a function's probe, or notes why there is none.
    fn probe(&mut self, candidate: &Candidate<'_>) -> Option<Probe> {
        let Candidate { symbol, function, arguments } = *candidate;
        let (address, size) = (symbol.address, symbol.size);
        match place(self.object, address, size, function, arguments, self.emulation) {
            Ok(placement) => {
                let symbol = symbol.name.clone();
                Some(Probe { symbol, function, arguments, address, placement })
            }
            Err(error) => {
                self.skip(symbol, error.into());
                None
            }
        }
    }

    fn add_custom(&mut self, custom: &[CustomFunction]) {
        let mut taken = HashSet::new();
        for CustomFunction { symbol: name, function, arguments } in custom {
            for symbol in self.named(name) {
                if symbol.indirect {
                    self.skip(symbol, SkippedBecause::Indirect);
                } else if taken.len() == MAX_FUNCTIONS {
                    self.skip(symbol, SkippedBecause::TooMany);
                    return;
                } else if taken.insert(symbol.address) {
                    let (function, arguments) = (*function, *arguments);
                    let probe = self.probe(&Candidate { symbol, function, arguments });
                    self.found.custom.extend(probe);
                }
            }
        }
    }

    fn add_allocators(&mut self) -> Result<(), ElfError> {
        // What the user named is the user's: not to be probed twice.
        let mut taken: HashSet<u64> = self.found.custom.iter().map(|probe| probe.address).collect();
        let mut families: Vec<Candidates<'s>> = Vec::new();
        for family in FAMILIES {
            let gates = ["malloc", "free"].map(|base| {
                let name = family.name(base);
                self.named(&name).next().map(|symbol| symbol.address)
            });
            let (malloc, free) = match gates {
                [Some(malloc), Some(free)] => (malloc, free),
                // Nobody else can free there: nothing does.
                [Some(malloc), None]
                    if family.prefix.is_empty() && self.object.is_static_program() =>
                {
                    (malloc, malloc)
                }
                _ => continue,
            };
            let candidates = self.candidates(family, &mut taken);
            // mi_malloc and malloc at one address are one heap.
            let shared = families.iter_mut().find(|(_, others)| {
                let has = |gate| others.iter().any(|other| other.symbol.address == gate);
                has(malloc) && has(free)
            });
            match shared {
                Some((_, others)) => others.extend(candidates),
                None => families.push((family, candidates)),
            }
        }
        if families.is_empty() {
            return Ok(());
        }
        let forwarding = self.forwarding(&families)?;
        merge_heaps(&mut families, &forwarding);
        let defined: HashSet<&str> =
            self.symbols.iter().map(|symbol| symbol.name.as_str()).collect();
        for (family, candidates) in families {
            let mut probes = Vec::new();
            for candidate in &candidates {
                if forwarding.is_forwarding(candidate.symbol.address) {
                    self.skip(candidate.symbol, SkippedBecause::Forwards);
                } else {
                    probes.extend(self.probe(candidate));
                }
            }
            if !probes.is_empty() {
                let kind = kind(family.prefix, &defined);
                let prefix = family.prefix;
                self.found.allocators.push(Allocator { kind, prefix, probes });
            }
        }
        Ok(())
    }

    fn candidates(&mut self, family: &Family, taken: &mut HashSet<u64>) -> Vec<Candidate<'s>> {
        let mut candidates = Vec::new();
        for (name, known) in family.functions() {
            for symbol in self.named(&name) {
                if symbol.indirect {
                    self.skip(symbol, SkippedBecause::Indirect);
                } else if taken.len() >= 2 * MAX_FUNCTIONS {
                    // The user's and the allocators'.
                    self.skip(symbol, SkippedBecause::TooMany);
                    return candidates;
                } else if taken.insert(symbol.address) {
                    let (function, arguments) = (known.function, known.arguments);
                    candidates.push(Candidate { symbol, function, arguments });
                }
            }
        }
        candidates
    }

    /// Finds out which functions only pass calls on.
    fn forwarding(&self, families: &[Candidates<'s>]) -> Result<Forwarding<'s>, ElfError> {
        let all = || families.iter().flat_map(|(_, candidates)| candidates);
        let functions =
            all().map(|candidate| (candidate.symbol.address, candidate.function)).collect();
        let names: Vec<&str> = self.symbols.iter().map(|symbol| symbol.name.as_str()).collect();
        let slots: HashMap<u64, u64> = self
            .object
            .find_call_slots(&names)?
            .into_iter()
            .map(|(slot, index)| (slot, self.symbols[index].address))
            .collect();
        let mut forwarding = Forwarding::new(self.object, functions, slots);
        for candidate in all() {
            forwarding.examine(candidate.symbol.address);
        }
        Ok(forwarding)
    }
}

/// Puts families together whose functions lead into each other's: where
/// malloc jumps to mi_malloc, they are one heap.
fn merge_heaps(families: &mut Vec<Candidates<'_>>, forwarding: &Forwarding<'_>) {
    let mut index = families.len();
    while index > 1 {
        index -= 1;
        let leads_here = |candidate: &Candidate<'_>| {
            forwarding
                .relied_on_by(candidate.symbol.address)
                .any(|target| families[index].1.iter().any(|other| other.symbol.address == target))
        };
        let into = (0..index).find(|earlier| families[*earlier].1.iter().any(leads_here));
        if let Some(into) = into {
            let (_, candidates) = families.remove(index);
            families[into].1.extend(candidates);
        }
    }
}
