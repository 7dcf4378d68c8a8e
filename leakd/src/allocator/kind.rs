//! Which allocator an object holds.

use std::collections::HashSet;

/// An allocator that is known by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The GNU C library's.
    Glibc,
    /// musl's.
    Musl,
    /// jemalloc, under any prefix.
    Jemalloc,
    /// gperftools' or Google's tcmalloc.
    Tcmalloc,
    /// mimalloc.
    Mimalloc,
    /// snmalloc.
    Snmalloc,
    /// Some other one, such as a sanitizer's or a program's own.
    Other,
}

/// Functions that tell allocators apart; looked for along with the others.
pub(super) const MARKERS: &[&str] = &[
    "mallctl",
    "tc_version",
    "tc_malloc",
    "TCMallocInternalMalloc",
    "MallocExtension_Internal_GetStats",
    "mi_version",
    "mi_malloc",
    "__asan_init",
    "__msan_init",
    "__tsan_init",
    "__lsan_init",
    "sn_rust_alloc",
    "gnu_get_libc_version",
    "_int_malloc",
    "__libc_memalign",
    "__libc_malloc_impl",
    "__malloc_donate",
    "__libc_start_main",
];

/// Tells the kind of the family with this prefix, in an object that defines
/// these functions.
pub(super) fn kind(prefix: &str, defined: &HashSet<&str>) -> Kind {
    match prefix {
        "mi_" => return Kind::Mimalloc,
        "tc_" => return Kind::Tcmalloc,
        "je_" | "_rjem_" => return Kind::Jemalloc,
        "sn_" => return Kind::Snmalloc,
        _ => {}
    }
    let has = |names: &[&str]| names.iter().any(|name| defined.contains(name));
    if has(&["__asan_init", "__msan_init", "__tsan_init", "__lsan_init"]) {
        Kind::Other
    } else if has(&["mallctl"]) && has(&["mallocx"]) {
        Kind::Jemalloc
    } else if has(&["tc_malloc", "tc_version", "TCMallocInternalMalloc"]) {
        Kind::Tcmalloc
    } else if has(&["sn_rust_alloc"]) {
        Kind::Snmalloc
    } else if has(&["gnu_get_libc_version", "_int_malloc"]) {
        Kind::Glibc
    } else if has(&["__libc_malloc_impl", "__malloc_donate"]) {
        Kind::Musl
    } else if has(&["mi_malloc"]) {
        // Last but for the shared musl: a static program may have mimalloc
        // next to its C library's malloc.
        Kind::Mimalloc
    } else if has(&["__libc_start_main"]) && !has(&["__libc_memalign"]) {
        // A shared musl tells of itself only by being a C library that is
        // not glibc.
        Kind::Musl
    } else {
        Kind::Other
    }
}
