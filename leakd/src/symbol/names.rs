//! One address, named by blazesym.

use std::collections::HashMap;
use std::io;

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{self, CodeInfo, Input, Sym, Symbolized};

use super::address::{CodeAddress, Frame, Lookup, Object, ObjectRef};
use super::demangle::demangle;
use super::perf_map::PerfMaps;
use super::prepare::{self, Prepared};
use crate::elf::FileIdentity;

/// Files that are held prepared; beyond, all are let go and read anew.
const OBJECTS: usize = 256;
/// Bytes of copies that are held.
const COPIES: u64 = 1 << 30;
/// What stands for the module of code that was made at run time.
const JIT_MODULE: &str = "[jit]";
/// Frames that one address gives at most.
const INLINED: usize = 64;

/// How much of a file is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing: it took too long, or made its reader panic.
    Nothing,
    /// The symbol table only: the debugging information took too long.
    Symbols,
    /// Lines and inlined functions too.
    #[default]
    Lines,
}

impl Level {
    /// The next lower level.
    pub fn lower(self) -> Self {
        match self {
            Self::Lines => Self::Symbols,
            Self::Symbols | Self::Nothing => Self::Nothing,
        }
    }
}

/// Frames for one address without their `address`, which differs between
/// processes.
pub type Template = Vec<Frame>;

/// blazesym and the files that it has read.
#[derive(Debug)]
pub struct Names {
    blazesym: symbolize::Symbolizer,
    prepared: HashMap<FileIdentity, Option<Prepared>>,
    perf_maps: PerfMaps,
}

impl Names {
    pub fn new() -> Self {
        Self {
            blazesym: symbolize::Symbolizer::builder()
                .enable_demangling(false) // see `demangle`
                .enable_auto_reload(true) // descriptors' numbers are used again
                .build(),
            prepared: HashMap::new(),
            perf_maps: PerfMaps::default(),
        }
    }

    /// Names one address: at least one frame, with or without a function.
    pub fn find(&mut self, address: &CodeAddress, level: Level) -> Template {
        match address {
            CodeAddress::File { object, offset, lookup, .. } => {
                self.find_in_file(object, *offset, *lookup, level)
            }
            CodeAddress::Jit { pid, address, lookup } => {
                let back = step_back(*lookup);
                let named = self.perf_maps.find(*pid, address.saturating_sub(back));
                match named {
                    Some((name, offset)) => vec![Frame {
                        function: Some(demangle(&name)),
                        offset: Some(offset + back),
                        ..unnamed(Some(JIT_MODULE.to_owned()))
                    }],
                    None => vec![unnamed(Some(JIT_MODULE.to_owned()))],
                }
            }
            CodeAddress::Unmapped { .. } => vec![unnamed(None)],
        }
    }

    fn find_in_file(
        &mut self,
        object: &ObjectRef,
        offset: u64,
        lookup: Lookup,
        level: Level,
    ) -> Template {
        let fallback = || vec![in_module(object, offset)];
        if level == Level::Nothing {
            return fallback();
        }
        let Some(path) = self.path(object) else { return fallback() };
        let mut elf = Elf::new(path);
        elf.debug_syms = level == Level::Lines;
        let back = step_back(lookup);
        let input = Input::FileOffset(offset.saturating_sub(back));
        match self.blazesym.symbolize_single(&Source::Elf(elf), input) {
            Ok(Symbolized::Sym(symbol)) => frames(object, &symbol, back),
            Ok(Symbolized::Unknown(_)) => fallback(),
            Err(error) if level == Level::Lines => {
                tracing::debug!(path = %object.path().display(), %error, "no lines");
                self.find_in_file(object, offset, lookup, Level::Symbols)
            }
            Err(error) => {
                tracing::debug!(path = %object.path().display(), %error, "no symbols");
                fallback()
            }
        }
    }

    /// The path under which blazesym may read a file.
    fn path(&mut self, object: &ObjectRef) -> Option<std::path::PathBuf> {
        if !self.prepared.contains_key(object.identity()) {
            let copied: u64 = self.prepared.values().flatten().map(|one| one.copied).sum();
            let size = object.identity().size.min(prepare::COPY_LIMIT);
            if self.prepared.len() >= OBJECTS || copied.saturating_add(size) > COPIES {
                let perf_maps = std::mem::take(&mut self.perf_maps);
                *self = Self { perf_maps, ..Self::new() };
            }
            let prepared = prepare::prepare(object)
                .inspect_err(|error: &io::Error| {
                    tracing::warn!(
                        path = %crate::terminal::safe(&object.path().to_string_lossy()),
                        %error,
                        "no names for this file"
                    );
                })
                .ok();
            self.prepared.insert(*object.identity(), prepared);
        }
        self.prepared.get(object.identity())?.as_ref().map(|prepared| prepared.path.clone())
    }
}

/// How far before an address its instruction is looked up.
pub fn step_back(lookup: Lookup) -> u64 {
    match lookup {
        Lookup::Return => 1,
        Lookup::Instruction => 0,
    }
}

/// The frame of an address of which nothing more is known.
pub fn unnamed_frame(address: &CodeAddress) -> Frame {
    match address {
        CodeAddress::File { object, offset, address, .. } => {
            Frame { address: *address, ..in_module(object, *offset) }
        }
        CodeAddress::Jit { address, .. } => {
            Frame { address: *address, ..unnamed(Some(JIT_MODULE.to_owned())) }
        }
        CodeAddress::Unmapped { address } => Frame { address: *address, ..unnamed(None) },
    }
}

fn unnamed(module: Option<String>) -> Frame {
    Frame { module, ..Frame::default() }
}

fn in_module(object: &Object, offset: u64) -> Frame {
    Frame {
        module: Some(module(object)),
        build_id: object.identity().build_id.map(|id| id.to_string()),
        offset: Some(offset),
        ..Frame::default()
    }
}

fn module(object: &Object) -> String {
    long_path(&object.path().to_string_lossy())
}

/// Paths may be as long as the kernel lets them be, and no longer.
fn long_path(path: &str) -> String {
    crate::terminal::shorten_start(path, libc::PATH_MAX as usize).into_owned()
}

fn frames(object: &Object, symbol: &Sym<'_>, back: u64) -> Template {
    let outer = Frame {
        function: Some(demangle(&symbol.name)),
        offset: Some((symbol.offset as u64).saturating_add(back)),
        inlined: false,
        ..located(object, symbol.code_info.as_deref())
    };
    let mut frames: Vec<Frame> = symbol
        .inlined
        .iter()
        .rev() // blazesym has the outermost first
        .take(INLINED)
        .map(|inlined| Frame {
            function: Some(demangle(&inlined.name)),
            inlined: true,
            ..located(object, inlined.code_info.as_ref())
        })
        .collect();
    frames.push(outer);
    frames
}

fn located(object: &Object, code: Option<&CodeInfo<'_>>) -> Frame {
    Frame {
        file: code.map(|code| long_path(&code.to_path().to_string_lossy())),
        line: code.and_then(|code| code.line).filter(|line| *line > 0),
        module: Some(module(object)),
        build_id: object.identity().build_id.map(|id| id.to_string()),
        ..Frame::default()
    }
}
