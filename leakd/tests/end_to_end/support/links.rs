//! The BPF links on a process, asked from the kernel.

use std::{
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::Mutex,
};

// Commands of bpf(2) and the link type, from include/uapi/linux/bpf.h.
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_LINK_GET_FD_BY_ID: libc::c_int = 30;
const BPF_LINK_GET_NEXT_ID: libc::c_int = 31;
const BPF_LINK_TYPE_UPROBE_MULTI: u32 = 12;
const BPF_PROG_TYPE_KPROBE: u32 = 2;
const BPF_TRACE_UPROBE_MULTI: u32 = 48;

/// A look at a link keeps it alive: one look at a time, so that a link that
/// another test waits to see gone is not held by this one.
static LOOKING: Mutex<()> = Mutex::new(());

/// The head of `union bpf_attr`, as the commands above use it.
#[repr(C, align(8))]
struct Attributes([u32; 32]);

fn bpf(command: libc::c_int, attributes: &mut Attributes) -> std::io::Result<i32> {
    // SAFETY: the structure is larger than what these commands read, zeroed
    // behind what is set, and a pointer in it points to live memory of the
    // length beside it.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<Attributes>()) };
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(std::io::Error::last_os_error()),
    }
}

impl Attributes {
    /// Puts a 64-bit field, which takes two words.
    fn set_pointer<T>(&mut self, word: usize, pointer: *const T) {
        let address = pointer as u64;
        self.0[word] = address as u32;
        self.0[word + 1] = (address >> 32) as u32;
    }
}

fn descriptor(command: libc::c_int, attributes: &mut Attributes) -> std::io::Result<OwnedFd> {
    let descriptor = bpf(command, attributes)?;
    // SAFETY: the commands that this is called with give a descriptor that
    // is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Puts a uprobe with an empty program on `offset` of the file `path` in
/// process `pid`, until what is returned first is dropped; says, too, how many
/// BPF links it has. Knows nothing of leakd.
pub fn uprobe_on(pid: i32, path: &str, offset: u64) -> (Vec<OwnedFd>, usize) {
    let path = std::ffi::CString::new(path).expect("paths hold no NUL");
    if !has_uprobe_links() {
        return (vec![uprobe_by_perf_event(pid, &path, offset)], 0);
    }
    // r0 = 0; exit
    let program: [u64; 2] = [0xb7, 0x95];
    let mut load = Attributes([0; 32]);
    load.0[0] = BPF_PROG_TYPE_KPROBE;
    load.0[1] = 2;
    load.set_pointer(2, program.as_ptr());
    load.set_pointer(4, c"GPL".as_ptr());
    load.0[17] = BPF_TRACE_UPROBE_MULTI;
    let program = descriptor(BPF_PROG_LOAD, &mut load).expect("cannot load an empty program");
    let mut create = Attributes([0; 32]);
    create.0[0] = u32::try_from(program.as_raw_fd()).expect("descriptors are not negative");
    create.0[2] = BPF_TRACE_UPROBE_MULTI;
    create.set_pointer(4, path.as_ptr());
    create.set_pointer(6, &raw const offset);
    create.0[12] = 1;
    create.0[14] = u32::try_from(pid).expect("pids are not negative");
    let link = descriptor(BPF_LINK_CREATE, &mut create).expect("cannot place a uprobe");
    (vec![link, program], 1)
}

/// Whether this kernel is of version 6.6 or later, which have uprobe_multi.
fn has_uprobe_links() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("procfs");
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = numbers.next().zip(numbers.next());
    version.unwrap_or_else(|| panic!("which version is {release}?")) >= (6, 6)
}

/// The same without BPF: a perf event that counts.
fn uprobe_by_perf_event(pid: i32, path: &std::ffi::CStr, offset: u64) -> OwnedFd {
    let kind = std::fs::read_to_string("/sys/bus/event_source/devices/uprobe/type");
    let kind = kind.expect("this kernel has uprobes").trim().parse().expect("a number");
    // struct perf_event_attr: type and size; uprobe_path and uprobe_offset are
    // words 7 and 8 of 64 bits.
    let mut event = Attributes([0; 32]);
    event.0[0] = kind;
    event.0[1] = u32::try_from(size_of::<Attributes>()).expect("128");
    event.set_pointer(14, path.as_ptr());
    event.0[16] = offset as u32;
    event.0[17] = (offset >> 32) as u32;
    // SAFETY: the structure has the size that it says, zeroed behind what is
    // set, and the path outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const event, pid, -1, -1, 0) };
    let error = std::io::Error::last_os_error();
    let descriptor = i32::try_from(result).ok().filter(|descriptor| *descriptor >= 0);
    let descriptor = descriptor.unwrap_or_else(|| panic!("cannot place a uprobe: {error}"));
    // SAFETY: the kernel has just given it to us, and to nobody else.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// How many uprobe_multi links there are on process `pid`, whoever made them.
pub fn links_on(pid: i32) -> usize {
    let _looking = LOOKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut id = 0;
    let mut count = 0;
    loop {
        let mut next = Attributes([0; 32]);
        next.0[0] = id;
        match bpf(BPF_LINK_GET_NEXT_ID, &mut next) {
            Ok(_) => id = next.0[1],
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return count,
            Err(error) => panic!("cannot list the BPF links: {error}"),
        }
        let mut open = Attributes([0; 32]);
        open.0[0] = id;
        // It may have gone since.
        let Ok(link) = descriptor(BPF_LINK_GET_FD_BY_ID, &mut open) else { continue };
        // struct bpf_link_info: type, id, prog_id, padding; for uprobe_multi
        // four pointers, then path_size, count, flags, pid.
        let mut info = [0u32; 32];
        let mut ask = Attributes([0; 32]);
        ask.0[0] = u32::try_from(link.as_raw_fd()).expect("descriptors are not negative");
        ask.0[1] = u32::try_from(size_of_val(&info)).expect("128");
        ask.set_pointer(2, info.as_mut_ptr());
        bpf(BPF_OBJ_GET_INFO_BY_FD, &mut ask).expect("the kernel describes its links");
        count += usize::from(info[0] == BPF_LINK_TYPE_UPROBE_MULTI && info[15] == pid as u32);
    }
}
