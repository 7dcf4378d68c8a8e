//! The names of the functions that allocators offer.

use leakd_common::cookie::{Arguments, Function};

/// A function that may hand memory out or take it back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub name: &'static str,
    pub function: Function,
    pub arguments: Arguments,
}

const NONE: Arguments = Arguments { size: 0, count: 0, pointer: 0 };

const fn known(name: &'static str, function: Function) -> Known {
    Known { name, function, arguments: NONE }
}

/// A function whose operands are where no standard function has them.
const fn sized(name: &'static str, size: u8, count: u8) -> Known {
    let arguments = Arguments { size, count, pointer: 0 };
    Known { name, function: Function::CustomAllocate, arguments }
}

/// The C functions, without an allocator's prefix. The first name at an
/// address is the one that is reported. In Debian's builds `malloc` and
/// `mi_malloc`, say, are one function.
const STANDARD: &[Known] = &[
    known("malloc", Function::Malloc),
    known("free", Function::Free),
    known("calloc", Function::Calloc),
    known("realloc", Function::Realloc),
    known("reallocarray", Function::Reallocarray),
    known("memalign", Function::Memalign),
    known("aligned_alloc", Function::Memalign),
    known("posix_memalign", Function::PosixMemalign),
    known("valloc", Function::Valloc),
    known("pvalloc", Function::Valloc),
    known("cfree", Function::Free),
    known("free_sized", Function::Free),
    known("free_aligned_sized", Function::Free),
];

/// jemalloc's own. xallocx is left out: it resizes in place and returns a
/// size; the block keeps its address.
const JEMALLOC: &[Known] = &[
    known("mallocx", Function::Malloc),
    known("rallocx", Function::Realloc),
    known("dallocx", Function::Free),
    known("sdallocx", Function::Free),
];

/// tcmalloc's own, with gperftools' prefix.
const TCMALLOC: &[Known] = &[
    known("malloc_skip_new_handler", Function::Malloc),
    known("new", Function::New),
    known("newarray", Function::New),
    known("new_nothrow", Function::Malloc),
    known("newarray_nothrow", Function::Malloc),
    known("new_aligned", Function::New),
    known("newarray_aligned", Function::New),
    known("delete", Function::Free),
    known("deletearray", Function::Free),
    known("delete_sized", Function::Free),
    known("deletearray_sized", Function::Free),
    known("delete_aligned", Function::Free),
    known("deletearray_aligned", Function::Free),
];

/// mimalloc's own, after its prefix. mi_heap_realloc and its kin are left out
/// for want of a cookie for (heap, block, size); programs that use heaps of
/// their own are few.
const MIMALLOC: &[Known] = &[
    known("malloc_small", Function::Malloc),
    known("zalloc", Function::Malloc),
    known("zalloc_small", Function::Malloc),
    known("mallocn", Function::Calloc),
    known("reallocn", Function::Reallocarray),
    known("reallocf", Function::Realloc),
    known("rezalloc", Function::Realloc),
    known("recalloc", Function::Reallocarray),
    known("malloc_aligned", Function::Malloc),
    known("malloc_aligned_at", Function::Malloc),
    known("zalloc_aligned", Function::Malloc),
    known("zalloc_aligned_at", Function::Malloc),
    known("calloc_aligned", Function::Calloc),
    known("calloc_aligned_at", Function::Calloc),
    known("realloc_aligned", Function::Realloc),
    known("realloc_aligned_at", Function::Realloc),
    known("rezalloc_aligned", Function::Realloc),
    known("recalloc_aligned", Function::Reallocarray),
    known("new", Function::New),
    known("new_n", Function::Calloc),
    known("new_nothrow", Function::Malloc),
    known("new_aligned", Function::New),
    known("new_aligned_nothrow", Function::Malloc),
    known("new_realloc", Function::Realloc),
    known("new_reallocn", Function::Reallocarray),
    known("free_size", Function::Free),
    known("free_aligned", Function::Free),
    known("free_size_aligned", Function::Free),
    sized("heap_malloc", 2, 0),
    sized("heap_malloc_small", 2, 0),
    sized("heap_zalloc", 2, 0),
    sized("heap_calloc", 3, 2),
    sized("heap_mallocn", 3, 2),
    sized("heap_malloc_aligned", 2, 0),
    sized("heap_zalloc_aligned", 2, 0),
    sized("heap_calloc_aligned", 3, 2),
    sized("heap_alloc_new", 2, 0),
];

/// operator new and delete (Itanium C++ ABI names).
const OPERATORS: &[Known] = &[
    known("_Znwm", Function::New),
    known("_Znam", Function::New),
    known("_ZnwmRKSt9nothrow_t", Function::Malloc),
    known("_ZnamRKSt9nothrow_t", Function::Malloc),
    known("_ZnwmSt11align_val_t", Function::New),
    known("_ZnamSt11align_val_t", Function::New),
    known("_ZnwmSt11align_val_tRKSt9nothrow_t", Function::Malloc),
    known("_ZnamSt11align_val_tRKSt9nothrow_t", Function::Malloc),
    known("__size_returning_new", Function::New),
    known("__size_returning_new_aligned", Function::New),
    known("_ZdlPv", Function::Free),
    known("_ZdaPv", Function::Free),
    known("_ZdlPvm", Function::Free),
    known("_ZdaPvm", Function::Free),
    known("_ZdlPvRKSt9nothrow_t", Function::Free),
    known("_ZdaPvRKSt9nothrow_t", Function::Free),
    known("_ZdlPvSt11align_val_t", Function::Free),
    known("_ZdaPvSt11align_val_t", Function::Free),
    known("_ZdlPvmSt11align_val_t", Function::Free),
    known("_ZdaPvmSt11align_val_t", Function::Free),
    known("_ZdlPvSt11align_val_tRKSt9nothrow_t", Function::Free),
    known("_ZdaPvSt11align_val_tRKSt9nothrow_t", Function::Free),
];

/// Functions that belong to one heap: `malloc` and `free` behind one prefix,
/// and what else has that prefix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    pub prefix: &'static str,
    own: &'static [&'static [Known]],
    /// Functions that are named without the prefix.
    global: &'static [&'static [Known]],
}

/// The families that are looked for. An object may define several: a static
/// program with jemalloc behind a prefix has the C library's malloc, too.
pub(super) const FAMILIES: &[Family] = &[
    Family { prefix: "", own: &[STANDARD, JEMALLOC], global: &[OPERATORS] },
    Family { prefix: "mi_", own: &[STANDARD, MIMALLOC], global: &[] },
    Family { prefix: "tc_", own: &[STANDARD, TCMALLOC], global: &[] },
    // Redis and others build jemalloc with this prefix ...
    Family { prefix: "je_", own: &[STANDARD, JEMALLOC], global: &[] },
    // ... and Rust's jemallocator with this one.
    Family { prefix: "_rjem_", own: &[STANDARD, JEMALLOC], global: &[] },
    Family { prefix: "sn_", own: &[STANDARD], global: &[] },
];

impl Family {
    /// The name of one of its functions.
    pub(super) fn name(&self, base: &str) -> String {
        format!("{}{base}", self.prefix)
    }

    /// All its functions under their full names.
    pub(super) fn functions(&self) -> impl Iterator<Item = (String, Known)> + '_ {
        let own = self.own.iter().flat_map(|set| set.iter());
        let own = own.map(|known| (self.name(known.name), *known));
        let global = self.global.iter().flat_map(|set| set.iter());
        own.chain(global.map(|known| (known.name.to_owned(), *known)))
    }
}
