//! BTF for the maps that stand in maps of maps.
//!
//! Before 6.2 the kernel compares, among other things, where a map's values
//! have a timer (`bpf_map_meta_equal`), and notes "no BTF" and "BTF without a
//! timer" as two different places. The templates come from aya with BTF, so
//! the maps that are to stand in for them need some, too: an integer as key,
//! and as value an opaque structure, or for an array of arrays an array, as that
//! is a third place: "no structure, so nowhere to look".

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use super::sys;
use crate::btf::format::{HEADER_BYTES, MAGIC, VERSION, information, kind};

const BTF_LOAD: u32 = 18;
/// The type number of the key in [`load`]'s BTF.
pub(super) const KEY: u32 = 1;
/// The type number of the value.
pub(super) const VALUE: u32 = 2;

/// Attribute of BPF_BTF_LOAD.
#[repr(C)]
#[derive(Default)]
struct LoadAttribute {
    btf: u64,
    log: u64,
    size: u32,
    log_size: u32,
    log_level: u32,
    padding: u32,
}

const _: () = assert!(size_of::<LoadAttribute>() == 32);

/// What the template says of its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// A structure.
    Structure,
    /// An array of integers like the key.
    Array,
}

/// Loads BTF with an integer of `key_size` bytes and a value of `value_size`
/// bytes (Documentation/bpf/btf.rst).
pub(super) fn load(key_size: u32, value_size: u32, value: Value) -> io::Result<OwnedFd> {
    let strings = b"\0key\0value\0";
    let mut types = vec![1, information(kind::INT, 0), key_size, key_size * 8];
    match value {
        Value::Structure => types.extend([5, information(kind::STRUCT, 0), value_size]),
        Value::Array => {
            types.extend([0, information(kind::ARRAY, 0), 0, KEY, KEY, value_size / key_size])
        }
    }
    let types_size = 4 * types.len() as u32;
    let mut bytes = Vec::with_capacity(64);
    bytes.extend(MAGIC.to_ne_bytes());
    bytes.extend([VERSION, 0]); // and flags
    for word in [HEADER_BYTES, 0, types_size, types_size, strings.len() as u32] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(types.iter().flat_map(|word| word.to_ne_bytes()));
    bytes.extend(strings);
    let mut attribute = LoadAttribute {
        btf: bytes.as_ptr() as u64,
        size: bytes.len() as u32,
        ..LoadAttribute::default()
    };
    // SAFETY: the layout of BPF_BTF_LOAD; `btf` is good for `size` bytes.
    let fd = unsafe { sys::bpf(BTF_LOAD, &mut attribute)? };
    // SAFETY: the kernel has just made this descriptor, and for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
