//! Loading of uprobe programs with the attach type that their links need.
//!
//! The kernel wants it at load time (kernel/bpf/syscall.c, bpf_prog_load):
//! a program that was loaded as a plain kprobe cannot be linked as
//! uprobe_multi. aya 0.14 has no way to say so.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use aya_obj::Object;

use super::object::{BYTES, BpfObject};
use super::sys;

const PROG_LOAD: u32 = 5;
const BTF_LOAD: u32 = 18;
const PROG_TYPE_KPROBE: u32 = 2;
const PROG_TYPE_TRACING: u32 = 26;
/// BPF_TRACE_ITER.
pub(super) const ATTACH_ITERATOR: u32 = 28;
const LOG_BYTES: usize = 16 << 20;
/// Lines of the verifier's log that an error carries: it explains itself at
/// the end.
const LOG_TAIL: usize = 20;

/// How a uprobe program will be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UprobeAttach {
    /// By perf event.
    Perf,
    /// By a uprobe_multi link (6.6).
    Multi,
    /// By a uprobe session link (6.13).
    Session,
}

impl UprobeAttach {
    /// `enum bpf_attach_type`.
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Perf => 0,
            Self::Multi => 48,
            Self::Session => 57,
        }
    }
}

/// Why a program could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The object and this program do not fit together.
    #[error("the BPF object has no program {0}: leakd was built from mixed sources")]
    Missing(String),
    /// The object cannot be read.
    #[error("cannot read the BPF object: {0}")]
    Object(String),
    /// The kernel refused it.
    #[error("the kernel refused the BPF program {name}: {source}: {}", last_line(.log))]
    Refused {
        /// The program.
        name: String,
        /// The cause.
        source: io::Error,
        /// The end of the verifier's log.
        log: String,
    },
}

/// A loaded program.
#[derive(Debug)]
pub struct Program {
    fd: OwnedFd,
    attach: UprobeAttach,
}

impl Program {
    /// Its descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.fd)
    }

    /// How it can be attached.
    pub fn attach_type(&self) -> UprobeAttach {
        self.attach
    }
}

/// The programs of the object, relocated against its maps, ready to load.
#[derive(Debug)]
pub struct ProgramLoader {
    object: Object,
    btf: Option<OwnedFd>,
}

impl ProgramLoader {
    /// Relocates the object's programs against the maps of `loaded`, which must
    /// live for as long as programs are loaded.
    pub fn new(loaded: &BpfObject) -> Result<Self, ProgramError> {
        let failed = |error: &dyn std::fmt::Display| ProgramError::Object(error.to_string());
        let mut object = Object::parse(BYTES).map_err(|error| failed(&error))?;
        let features = aya::features();
        let mut btf = None;
        if let Some(features) = features.btf()
            && let Some(fixed) =
                object.fixup_and_sanitize_btf(features).map_err(|error| failed(&error))?
        {
            btf = load_btf(&fixed.to_bytes()).ok();
        }
        let fds: HashMap<&str, RawFd> =
            loaded.maps().map(|(name, fd)| (name, fd.as_raw_fd())).collect();
        let maps: Vec<(String, aya_obj::Map)> = object.maps.drain().collect();
        let sections: HashSet<usize> =
            object.functions.keys().map(|(section, _)| *section).collect();
        object
            .relocate_maps(
                maps.iter()
                    .filter_map(|(name, map)| Some((name.as_str(), *fds.get(name.as_str())?, map))),
                &sections,
            )
            .map_err(|error| failed(&error))?;
        object.relocate_calls(&sections).map_err(|error| failed(&error))?;
        object.sanitize_functions(features);
        Ok(Self { object, btf })
    }

    /// Loads one program.
    pub fn load(&self, name: &str, attach: UprobeAttach) -> Result<Program, ProgramError> {
        let fd = self.load_as(name, PROG_TYPE_KPROBE, attach.number(), 0)?;
        Ok(Program { fd, attach })
    }

    /// Loads a program that the kernel calls for each of some things; `function`:
    /// the type of that in the kernel's own BTF.
    pub(super) fn load_iterator(&self, name: &str, function: u32) -> Result<OwnedFd, ProgramError> {
        self.load_as(name, PROG_TYPE_TRACING, ATTACH_ITERATOR, function)
    }

    fn load_as(
        &self,
        name: &str,
        program_type: u32,
        expected_attach_type: u32,
        attach_btf_id: u32,
    ) -> Result<OwnedFd, ProgramError> {
        let missing = || ProgramError::Missing(name.to_owned());
        let program = self.object.programs.get(name).ok_or_else(missing)?;
        let function = self.object.functions.get(&program.function_key()).ok_or_else(missing)?;
        let functions = function.func_info.func_info_bytes();
        let lines = function.line_info.line_info_bytes();
        let mut attribute = LoadAttribute {
            program_type,
            attach_btf_id,
            instruction_count: function.instructions.len() as u32,
            instructions: function.instructions.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            expected_attach_type,
            ..LoadAttribute::default()
        };
        for (to, from) in attribute.name[..15].iter_mut().zip(name.bytes()) {
            *to = from;
        }
        if let Some(btf) = &self.btf {
            attribute.btf_fd = btf.as_raw_fd() as u32;
            attribute.function_info_size = function.func_info_rec_size as u32;
            attribute.function_info = functions.as_ptr() as u64;
            attribute.function_info_count = function.func_info.len() as u32;
            attribute.line_info_size = function.line_info_rec_size as u32;
            attribute.line_info = lines.as_ptr() as u64;
            attribute.line_info_count = function.line_info.len() as u32;
        }
        // SAFETY: the layout of BPF_PROG_LOAD; every pointer is to a buffer that
        // lives through the call and has the length given beside it.
        let first = unsafe { sys::bpf(PROG_LOAD, &mut attribute) };
        let fd = match first {
            Ok(fd) => fd,
            Err(_) => {
                // Once more, for the verifier's reasons.
                let mut log = vec![0u8; LOG_BYTES];
                attribute.log_level = 1;
                attribute.log_size = LOG_BYTES as u32;
                attribute.log = log.as_mut_ptr() as u64;
                // SAFETY: as above, and the log is good for its length.
                unsafe { sys::bpf(PROG_LOAD, &mut attribute) }.map_err(|source| {
                    ProgramError::Refused { name: name.to_owned(), source, log: tail(&log) }
                })?
            }
        };
        // SAFETY: the kernel has just made this descriptor, and for us alone.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// What the verifier objected to: the line before its statistics.
fn last_line(log: &str) -> &str {
    log.lines().rfind(|line| !line.starts_with("processed ")).unwrap_or("no reason given")
}

fn tail(log: &[u8]) -> String {
    let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
    let text = String::from_utf8_lossy(&log[..end]);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n")
}

fn load_btf(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut attribute =
        BtfAttribute { btf: bytes.as_ptr() as u64, size: bytes.len() as u32, ..Default::default() };
    // SAFETY: the layout of BPF_BTF_LOAD; `btf` is good for `size` bytes.
    let fd = unsafe { sys::bpf(BTF_LOAD, &mut attribute)? };
    // SAFETY: the kernel has just made this descriptor, and for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attribute of BPF_PROG_LOAD, up to the line information.
#[repr(C)]
#[derive(Default)]
struct LoadAttribute {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach_type: u32,
    btf_fd: u32,
    function_info_size: u32,
    function_info: u64,
    function_info_count: u32,
    line_info_size: u32,
    line_info: u64,
    line_info_count: u32,
    attach_btf_id: u32,
}

const _: () = assert!(size_of::<LoadAttribute>() == 112);

/// Attribute of BPF_BTF_LOAD.
#[repr(C)]
#[derive(Default)]
struct BtfAttribute {
    btf: u64,
    log: u64,
    size: u32,
    log_size: u32,
    log_level: u32,
    padding: u32,
}

const _: () = assert!(size_of::<BtfAttribute>() == 32);
