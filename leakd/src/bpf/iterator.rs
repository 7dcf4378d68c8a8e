//! Iterators: programs that the kernel calls for each thread of a process, and
//! whose output is read like a file.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use aya::Btf;
use aya_obj::btf::BtfKind;

use super::object::BpfObject;
use super::program::{ATTACH_ITERATOR, ProgramError, ProgramLoader};
use super::sys;

const LINK_CREATE: u32 = 28;
const ITERATOR_CREATE: u32 = 33;
/// What the kernel calls programs for each task by.
const TASKS: &str = "bpf_iter_task";

/// A program to be called for each thread of a process.
#[derive(Debug)]
pub struct TaskIterator {
    program: OwnedFd,
}

impl TaskIterator {
    /// Loads it; the object must live as long as it.
    ///
    /// # Errors
    /// If the kernel has no such iterators (before 5.8) or no types of its own, or
    /// refuses the program.
    pub fn load(object: &BpfObject, program: &str) -> Result<Self, ProgramError> {
        let no_type = |error: &dyn std::fmt::Display| ProgramError::Refused {
            name: program.to_owned(),
            source: io::Error::other(error.to_string()),
            log: String::new(),
        };
        let function = Btf::from_sys_fs()
            .map_err(|error| no_type(&error))?
            .id_by_type_name_kind(TASKS, BtfKind::Func)
            .map_err(|error| no_type(&error))?;
        Ok(Self { program: ProgramLoader::new(object)?.load_iterator(program, function)? })
    }

    /// Calls it for each thread of a process; gives what it wrote.
    ///
    /// # Errors
    /// Those of bpf(2): EINVAL before 6.1, where an iterator cannot be had for one
    /// process alone; ESRCH if it has ended.
    pub fn run(&self, pid: u32) -> io::Result<Vec<u8>> {
        let mut which = Which { tid: 0, pid, pid_fd: 0 };
        let mut attribute = LinkAttribute {
            program_fd: self.program.as_raw_fd() as u32,
            attach_type: ATTACH_ITERATOR,
            which: std::ptr::from_mut(&mut which) as u64,
            which_length: size_of::<Which>() as u32,
            ..LinkAttribute::default()
        };
        // SAFETY: the layout of BPF_LINK_CREATE for iterators; `which` is good for
        // `which_length` bytes.
        let link = unsafe { sys::bpf(LINK_CREATE, &mut attribute)? };
        // SAFETY: the kernel has just made this descriptor, and for us alone.
        let link = unsafe { OwnedFd::from_raw_fd(link) };
        let mut attribute = IteratorAttribute { link_fd: link.as_raw_fd() as u32, flags: 0 };
        // SAFETY: the layout of BPF_ITER_CREATE, without pointers.
        let file = unsafe { sys::bpf(ITERATOR_CREATE, &mut attribute)? };
        // SAFETY: as above.
        let mut file = File::from(unsafe { OwnedFd::from_raw_fd(file) });
        let mut output = Vec::new();
        file.read_to_end(&mut output)?;
        Ok(output)
    }
}

/// `union bpf_iter_link_info`, for tasks.
#[repr(C)]
struct Which {
    tid: u32,
    pid: u32,
    pid_fd: u32,
}

/// Attribute of BPF_LINK_CREATE, for iterators.
#[repr(C)]
#[derive(Default)]
struct LinkAttribute {
    program_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    which: u64,
    which_length: u32,
    padding: u32,
}

const _: () = assert!(size_of::<LinkAttribute>() == 32);

/// Attribute of BPF_ITER_CREATE.
#[repr(C)]
struct IteratorAttribute {
    link_fd: u32,
    flags: u32,
}
