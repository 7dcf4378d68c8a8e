//! The BPF links on a process, asked from the kernel.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

// Commands of bpf(2) and the link type, from include/uapi/linux/bpf.h.
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_LINK_GET_FD_BY_ID: libc::c_int = 30;
const BPF_LINK_GET_NEXT_ID: libc::c_int = 31;
const BPF_LINK_TYPE_UPROBE_MULTI: u32 = 12;

/// The head of `union bpf_attr`, as the three commands above use it.
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

/// How many uprobe_multi links there are on process `pid`, whoever made them.
pub fn links_on(pid: i32) -> usize {
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
        let Ok(link) = bpf(BPF_LINK_GET_FD_BY_ID, &mut open) else { continue };
        // SAFETY: the kernel just gave us this descriptor.
        let link = unsafe { OwnedFd::from_raw_fd(link) };
        // struct bpf_link_info: type, id, prog_id, padding; for uprobe_multi
        // four pointers, then path_size, count, flags, pid.
        let mut info = [0u32; 32];
        let mut ask = Attributes([0; 32]);
        ask.0[0] = u32::try_from(link.as_raw_fd()).expect("descriptors are not negative");
        ask.0[1] = u32::try_from(size_of_val(&info)).expect("128");
        let address = info.as_mut_ptr() as u64;
        ask.0[2] = address as u32;
        ask.0[3] = (address >> 32) as u32;
        bpf(BPF_OBJ_GET_INFO_BY_FD, &mut ask).expect("the kernel describes its links");
        count += usize::from(info[0] == BPF_LINK_TYPE_UPROBE_MULTI && info[15] == pid as u32);
    }
}
