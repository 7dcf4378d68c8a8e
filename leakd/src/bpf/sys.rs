//! Raw bpf(2): attribute layouts and the commands on maps.
//!
//! Layouts and command numbers: `include/uapi/linux/bpf.h`. The kernel takes an
//! attribute shorter than its own and reads the rest as zero, so each command
//! has a structure with only the fields that it uses.
//!
//! The kernel copies as many bytes as the *map* says, whatever the length of
//! the caller's slice. Every function here therefore asks the map for its sizes
//! first ([`map_shape`]) and refuses slices that do not fit.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

pub use super::cpus::possible_cpus;
use super::map_type_information;

/// BPF_MAP_CREATE.
const MAP_CREATE: u32 = 0;
/// BPF_MAP_LOOKUP_ELEM.
const MAP_LOOKUP: u32 = 1;
/// BPF_MAP_UPDATE_ELEM.
const MAP_UPDATE: u32 = 2;
/// BPF_MAP_DELETE_ELEM.
const MAP_DELETE: u32 = 3;
/// BPF_MAP_GET_FD_BY_ID.
const MAP_BY_ID: u32 = 14;
/// BPF_OBJ_GET_INFO_BY_FD.
const OBJECT_INFO: u32 = 15;
/// BPF_MAP_LOOKUP_BATCH, since Linux 5.6.
const MAP_LOOKUP_BATCH: u32 = 24;
/// BPF_MAP_UPDATE_BATCH.
const MAP_UPDATE_BATCH: u32 = 26;
/// BPF_MAP_DELETE_BATCH.
const MAP_DELETE_BATCH: u32 = 27;

/// Map types, `enum bpf_map_type`.
pub mod map_type {
    /// BPF_MAP_TYPE_HASH.
    pub const HASH: u32 = 1;
    /// BPF_MAP_TYPE_ARRAY.
    pub const ARRAY: u32 = 2;
    /// BPF_MAP_TYPE_PERCPU_HASH.
    pub const PER_CPU_HASH: u32 = 5;
    /// BPF_MAP_TYPE_PERCPU_ARRAY.
    pub const PER_CPU_ARRAY: u32 = 6;
    /// BPF_MAP_TYPE_LRU_PERCPU_HASH.
    pub const LRU_PER_CPU_HASH: u32 = 10;
    /// BPF_MAP_TYPE_LPM_TRIE.
    pub const LPM_TRIE: u32 = 11;
    /// BPF_MAP_TYPE_ARRAY_OF_MAPS.
    pub const ARRAY_OF_MAPS: u32 = 12;
    /// BPF_MAP_TYPE_HASH_OF_MAPS.
    pub const HASH_OF_MAPS: u32 = 13;
    /// BPF_MAP_TYPE_RINGBUF.
    pub const RING_BUFFER: u32 = 27;
    /// BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE.
    pub const PER_CPU_CGROUP_STORAGE: u32 = 21;
}

/// Flags of map_create: `BPF_F_*`.
pub mod map_flags {
    /// BPF_F_NO_PREALLOC; LPM tries need it.
    pub const NO_PREALLOC: u32 = 1;
    /// BPF_F_MMAPABLE, arrays only.
    pub const MMAPABLE: u32 = 0x400;
    /// BPF_F_INNER_MAP: may stand in a map of maps whose template has another
    /// number of elements.
    pub const INNER_MAP: u32 = 0x1000;
}

/// ENOTSUPP: what the kernel answers to a batch command on a map type that has
/// none. Internal to the kernel, so libc does not have it.
pub const ENOTSUPP: i32 = 524;

/// What map to make.
#[derive(Clone, Copy, Debug)]
pub struct MapSpec<'a> {
    /// One of [`map_type`].
    pub map_type: u32,
    /// Bytes in a key.
    pub key_size: u32,
    /// Bytes in a value.
    pub value_size: u32,
    /// Elements.
    pub max_entries: u32,
    /// Of [`map_flags`].
    pub flags: u32,
    /// What `bpftool map` shows: letters, digits, `_` and `.`; all behind the
    /// 15th byte is cut off.
    pub name: &'a str,
}

/// Sizes of a map that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapShape {
    /// One of [`map_type`].
    pub map_type: u32,
    /// Bytes in a key.
    pub key_size: u32,
    /// Bytes in a value, on one CPU.
    pub value_size: u32,
    /// Elements.
    pub max_entries: u32,
    /// Of [`map_flags`].
    pub flags: u32,
}

impl MapShape {
    /// Bytes that a look-up or an update of one element copies: for per-CPU
    /// maps, the value rounded up to 8 bytes, once for each possible CPU.
    pub fn value_bytes(&self) -> io::Result<usize> {
        match self.map_type {
            map_type::PER_CPU_HASH
            | map_type::PER_CPU_ARRAY
            | map_type::LRU_PER_CPU_HASH
            | map_type::PER_CPU_CGROUP_STORAGE => {
                Ok((self.value_size as usize).next_multiple_of(8) * possible_cpus()?)
            }
            // Read and written as a descriptor or an id.
            map_type::ARRAY_OF_MAPS | map_type::HASH_OF_MAPS => Ok(4),
            _ => Ok(self.value_size as usize),
        }
    }
}

/// Where a batch look-up goes on.
#[derive(Clone, Debug, Default)]
pub struct BatchCursor {
    /// The kernel's position: a bucket number, or a key.
    position: Vec<u8>,
    /// Whether `position` holds one.
    begun: bool,
}

impl BatchCursor {
    /// At the map's beginning.
    pub fn new() -> Self {
        Self::default()
    }
}

/// What a batch look-up gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Elements written to the front of the buffers.
    pub count: u32,
    /// The map has no more.
    pub done: bool,
}

/// Attribute of BPF_MAP_CREATE.
#[repr(C)]
#[derive(Default)]
struct CreateAttribute {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    name: [u8; 16],
    interface: u32,
    btf_fd: u32,
    btf_key: u32,
    btf_value: u32,
}

const _: () = assert!(size_of::<CreateAttribute>() == 60);

/// Attribute of the commands on one element.
#[repr(C)]
#[derive(Default)]
struct ElementAttribute {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

const _: () = assert!(size_of::<ElementAttribute>() == 32);

/// Attribute of the batch commands.
#[repr(C)]
#[derive(Default)]
struct BatchAttribute {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    element_flags: u64,
    flags: u64,
}

const _: () = assert!(size_of::<BatchAttribute>() == 56);

/// Attribute of BPF_MAP_GET_FD_BY_ID.
#[repr(C)]
#[derive(Default)]
struct ByIdAttribute {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

const _: () = assert!(size_of::<ByIdAttribute>() == 12);

/// Attribute of BPF_OBJ_GET_INFO_BY_FD.
#[repr(C)]
#[derive(Default)]
struct InfoAttribute {
    object_fd: u32,
    length: u32,
    info: u64,
}

const _: () = assert!(size_of::<InfoAttribute>() == 16);

/// The front of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    map_type: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

const _: () = assert!(size_of::<MapInfo>() == 24);

/// bpf(2). The result is what the system call returned: a descriptor for
/// commands that make one, else 0.
///
/// # Safety
/// `attribute` must be laid out as `command` wants it, and each pointer in it
/// must be good for the bytes that the kernel reads or writes there.
pub(crate) unsafe fn bpf<T>(command: u32, attribute: &mut T) -> io::Result<i32> {
    // SAFETY: the structure is valid for its own size; the rest is the caller's.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attribute),
            size_of::<T>() as libc::c_uint,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// Makes a map. EPERM without CAP_BPF, ENOMEM or E2BIG where it is too large.
pub fn map_create(spec: &MapSpec<'_>) -> io::Result<OwnedFd> {
    create(spec, None)
}

/// Makes a map of maps; `template` has the shape of the maps that will stand in
/// it. Keys and values of `spec` are 4 bytes each.
pub fn map_create_of_maps(spec: &MapSpec<'_>, template: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    create(spec, Some(template))
}

fn create(spec: &MapSpec<'_>, template: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let mut attribute = CreateAttribute {
        map_type: spec.map_type,
        key_size: spec.key_size,
        value_size: spec.value_size,
        max_entries: spec.max_entries,
        flags: spec.flags,
        inner_map_fd: template.map_or(0, |fd| fd.as_raw_fd() as u32),
        ..Default::default()
    };
    for (to, from) in attribute.name[..15].iter_mut().zip(spec.name.bytes()) {
        *to = from;
    }
    // Without it where the kernel wants none: it matters only to old ones.
    // Those that stand in maps of maps are hashes of structures, and arrays of
    // arrays of words.
    let value = match spec.map_type {
        map_type::HASH => Some(map_type_information::Value::Structure),
        map_type::ARRAY => Some(map_type_information::Value::Array),
        _ => None,
    };
    let btf = value
        .and_then(|value| map_type_information::load(spec.key_size, spec.value_size, value).ok());
    if let Some(btf) = &btf {
        attribute.btf_fd = btf.as_raw_fd() as u32;
        attribute.btf_key = map_type_information::KEY;
        attribute.btf_value = map_type_information::VALUE;
    }
    // SAFETY: the layout of BPF_MAP_CREATE, without pointers.
    let fd = unsafe { bpf(MAP_CREATE, &mut attribute)? };
    // SAFETY: the kernel has just made this descriptor, and for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens a map by its id, which is what a look-up in a map of maps gives.
/// ENOENT if it has gone.
pub fn map_open(id: u32) -> io::Result<OwnedFd> {
    let mut attribute = ByIdAttribute { id, ..Default::default() };
    // SAFETY: the layout of BPF_MAP_GET_FD_BY_ID, without pointers.
    let fd = unsafe { bpf(MAP_BY_ID, &mut attribute)? };
    // SAFETY: the kernel has just made this descriptor, and for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What the kernel tells of a BPF object: as much of its information as `T` has
/// room for, which stays as it was behind what this kernel knows.
///
/// # Safety
/// `T` must have the layout of the object's information (`struct bpf_map_info`,
/// `bpf_prog_info`) from its beginning on. Any bytes must make a valid one. The
/// kernel follows pointers that `info` holds.
pub(super) unsafe fn object_info<T>(fd: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    let mut attribute = InfoAttribute {
        object_fd: fd.as_raw_fd() as u32,
        length: size_of::<T>() as u32,
        info: std::ptr::from_mut(info) as u64,
    };
    // SAFETY: the layout of BPF_OBJ_GET_INFO_BY_FD; `info` is good for `length`
    // bytes, the rest is the caller's.
    unsafe { bpf(OBJECT_INFO, &mut attribute)? };
    Ok(())
}

/// Asks a map for its sizes.
pub fn map_shape(fd: BorrowedFd<'_>) -> io::Result<MapShape> {
    let mut info = MapInfo::default();
    // SAFETY: the front of `struct bpf_map_info`, integers without pointers.
    unsafe { object_info(fd, &mut info)? };
    Ok(MapShape {
        map_type: info.map_type,
        key_size: info.key_size,
        value_size: info.value_size,
        max_entries: info.max_entries,
        flags: info.flags,
    })
}

/// Writes one element. `flags`: 0 any, 1 only if it is new, 2 only if it is
/// there. For a map of maps, `value` is the inner map's descriptor, and the call
/// waits for an RCU grace period (9 ms; see [`map_update_batch`]).
pub fn map_update(fd: BorrowedFd<'_>, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
    let shape = map_shape(fd)?;
    fits(&shape, 1, key, Some(value))?;
    let mut attribute = ElementAttribute {
        map_fd: fd.as_raw_fd() as u32,
        padding: 0,
        key: key.as_ptr() as u64,
        value: value.as_ptr() as u64,
        flags,
    };
    // SAFETY: the layout of BPF_MAP_UPDATE_ELEM; key and value are as long as the
    // map says, and the kernel only reads them.
    unsafe { bpf(MAP_UPDATE, &mut attribute)? };
    Ok(())
}

/// Reads one element into `value`; false if there is none.
pub fn map_lookup(fd: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    let shape = map_shape(fd)?;
    fits(&shape, 1, key, Some(value))?;
    let mut attribute = ElementAttribute {
        map_fd: fd.as_raw_fd() as u32,
        padding: 0,
        key: key.as_ptr() as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: the layout of BPF_MAP_LOOKUP_ELEM; the key is as long as the map
    // says, and so is the value, which the kernel writes.
    found(unsafe { bpf(MAP_LOOKUP, &mut attribute) })
}

/// Deletes one element; false if there was none.
pub fn map_delete(fd: BorrowedFd<'_>, key: &[u8]) -> io::Result<bool> {
    let shape = map_shape(fd)?;
    fits(&shape, 1, key, None)?;
    let mut attribute = ElementAttribute {
        map_fd: fd.as_raw_fd() as u32,
        key: key.as_ptr() as u64,
        ..Default::default()
    };
    // SAFETY: the layout of BPF_MAP_DELETE_ELEM; the key is as long as the map
    // says, and the kernel only reads it.
    found(unsafe { bpf(MAP_DELETE, &mut attribute) })
}

/// Writes `count` elements whose keys and values lie one behind the other;
/// gives how many were written. On an error all, some or none may have been.
/// [`ENOTSUPP`] or EINVAL where the map type or the kernel has no such command.
pub fn map_update_batch(
    fd: BorrowedFd<'_>,
    keys: &[u8],
    values: &[u8],
    count: u32,
    flags: u64,
) -> io::Result<u32> {
    if count == 0 {
        return Ok(0);
    }
    let shape = map_shape(fd)?;
    fits(&shape, count, keys, Some(values))?;
    let mut attribute = BatchAttribute {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count,
        map_fd: fd.as_raw_fd() as u32,
        element_flags: flags,
        ..Default::default()
    };
    // SAFETY: the layout of BPF_MAP_UPDATE_BATCH; keys and values are as long as
    // `count` elements, and the kernel only reads them.
    unsafe { bpf(MAP_UPDATE_BATCH, &mut attribute)? };
    Ok(attribute.count)
}

/// Deletes `count` elements whose keys lie one behind the other; gives how many.
/// ENOENT at the first that is not there; those behind it stay.
pub fn map_delete_batch(fd: BorrowedFd<'_>, keys: &[u8], count: u32) -> io::Result<u32> {
    if count == 0 {
        return Ok(0);
    }
    let shape = map_shape(fd)?;
    fits(&shape, count, keys, None)?;
    let mut attribute = BatchAttribute {
        keys: keys.as_ptr() as u64,
        count,
        map_fd: fd.as_raw_fd() as u32,
        ..Default::default()
    };
    // SAFETY: the layout of BPF_MAP_DELETE_BATCH; keys are as long as `count`
    // elements, and the kernel only reads them.
    unsafe { bpf(MAP_DELETE_BATCH, &mut attribute)? };
    Ok(attribute.count)
}

/// Reads up to `capacity` elements and moves the cursor on.
///
/// Hash maps are read by whole buckets: ENOSPC says that the next bucket is
/// larger than the buffers. Call again with the same cursor and larger ones.
pub fn map_lookup_batch(
    fd: BorrowedFd<'_>,
    cursor: &mut BatchCursor,
    keys: &mut [u8],
    values: &mut [u8],
    capacity: u32,
) -> io::Result<Batch> {
    let shape = map_shape(fd)?;
    if capacity == 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    fits(&shape, capacity, keys, Some(values))?;
    // Hash maps keep a 4-byte bucket number there, all others a key.
    let width = (shape.key_size as usize).max(4);
    if cursor.begun && cursor.position.len() != width {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a cursor of another map"));
    }
    cursor.position.resize(width, 0);
    let position = cursor.position.as_mut_ptr() as u64;
    let mut attribute = BatchAttribute {
        // The kernel reads the old position before it writes the new one.
        in_batch: if cursor.begun { position } else { 0 },
        out_batch: position,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: capacity,
        map_fd: fd.as_raw_fd() as u32,
        ..Default::default()
    };
    // SAFETY: the layout of BPF_MAP_LOOKUP_BATCH; keys and values are good for
    // `capacity` elements, the position for a key or a bucket number.
    match unsafe { bpf(MAP_LOOKUP_BATCH, &mut attribute) } {
        Ok(_) => {
            cursor.begun = true;
            Ok(Batch { count: attribute.count.min(capacity), done: false })
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
            cursor.begun = true;
            Ok(Batch { count: attribute.count.min(capacity), done: true })
        }
        Err(error) => Err(error),
    }
}

/// ENOENT is an answer, not an error.
fn found(result: io::Result<i32>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// InvalidInput unless the slices hold `count` elements of the map: exactly for
/// one element, at least for a batch.
fn fits(shape: &MapShape, count: u32, keys: &[u8], values: Option<&[u8]>) -> io::Result<()> {
    let holds = |length: usize, size: usize| {
        let wanted = size.checked_mul(count as usize);
        wanted.is_some_and(|wanted| if count == 1 { length == wanted } else { length >= wanted })
    };
    let value_bytes = shape.value_bytes()?;
    if !holds(keys.len(), shape.key_size as usize)
        || values.is_some_and(|values| !holds(values.len(), value_bytes))
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{count} elements of {} + {value_bytes} bytes do not fit slices of {} + {} bytes",
                shape.key_size,
                keys.len(),
                values.map_or(0, <[u8]>::len),
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
