//! Names of functions: shortened where they are long, told apart where they
//! say nothing about who is to blame.

use std::borrow::Cow;

use crate::report::model::Frame;
use crate::terminal::{columns, shorten_middle};

/// Functions of C libraries that allocate on behalf of others.
#[rustfmt::skip]
const ALLOCATORS: &[&str] = &[
    "malloc", "calloc", "realloc", "reallocarray", "memalign", "posix_memalign", "aligned_alloc",
    "valloc", "pvalloc", "strdup", "strndup", "__strdup", "__strndup", "asprintf", "vasprintf",
    "__vasprintf_internal", "g_malloc", "g_malloc0", "g_malloc_n", "g_malloc0_n", "g_realloc",
    "g_realloc_n", "g_slice_alloc", "g_slice_alloc0", "g_strdup", "g_strndup", "g_strdup_printf",
    "xmalloc", "xcalloc", "xrealloc", "xstrdup", "zmalloc", "zcalloc", "zrealloc", "ztrymalloc",
    "zmalloc_usable", "ztrymalloc_usable", "PyMem_Malloc", "PyMem_RawMalloc", "PyObject_Malloc",
    "_PyMem_RawMalloc", "_PyObject_Malloc",
];

/// How names begin of functions that allocate on behalf of others: the
/// allocators' own, and the containers of C++ and Rust.
#[rustfmt::skip]
const ALLOCATING: &[&str] = &[
    "__libc_", "operator new", "std::", "__gnu_cxx::",
    "alloc::", "core::", "hashbrown::", "<alloc::", "<core::", "<std::", "<hashbrown::",
    "<T as alloc::", "<T as core::", "__rust_", "__rustc", "__rdl_", "__rg_",
];

/// Whether a function only allocates on behalf of its caller.
pub fn is_boilerplate(function: &str) -> bool {
    // Compilers add suffixes to clones, linkers versions: malloc.part.0, malloc@GLIBC_2.2.5.
    let base = function.split(['.', '@', ' ']).next().unwrap_or_default();
    if ALLOCATORS.contains(&base) {
        return true;
    }
    // The demangled name of a template begins with its return type.
    let name = match function.split_once(' ') {
        Some((first, rest)) if !first.contains(['<', '(']) && rest.starts_with("std::") => rest,
        _ => function,
    };
    ALLOCATING.iter().any(|start| name.starts_with(start))
}

/// How names begin of the kernel's functions that allocate on behalf of others.
#[rustfmt::skip]
const KERNEL_ALLOCATING: &[&str] = &[
    "kmalloc", "__kmalloc", "___kmalloc", "__do_kmalloc", "kzalloc", "kcalloc", "krealloc",
    "kvmalloc", "__kvmalloc", "kvrealloc", "kmemdup", "kstrdup", "kstrndup", "kvmemdup",
    "kmem_cache_alloc", "__kmem_cache_alloc", "memdup_user", "strndup_user", "vmemdup_user",
    "alloc_pages", "__alloc_pages", "vmalloc", "__vmalloc", "vzalloc", "pcpu_alloc",
    "__alloc_percpu", "kasprintf", "kvasprintf", "devm_k", "__get_free_pages",
];

/// Where the sources of standard libraries lie, as debug information has it.
const LIBRARY_SOURCES: &[&str] =
    &["/library/alloc/src/", "/library/core/src/", "/library/std/src/", "/include/c++/"];

/// How names begin of what Rust's library does for its own types.
const LIBRARY_TYPES: &[&str] = &["<u8 as alloc::", "<str as alloc::", "<[T] as alloc::"];

/// Whether a frame only works on behalf of its caller: by where its source is,
/// if that is known, else by its name.
pub fn is_library(frame: &Frame) -> bool {
    let from_library = |file: &String| LIBRARY_SOURCES.iter().any(|source| file.contains(source));
    frame.file.as_ref().is_some_and(from_library)
        || frame.module.as_deref() == Some(crate::kernel::symbols::KERNEL)
            && frame
                .function
                .as_deref()
                .is_some_and(|name| KERNEL_ALLOCATING.iter().any(|start| name.starts_with(start)))
        || frame.function.as_deref().is_some_and(|name| {
            is_boilerplate(name) || LIBRARY_TYPES.iter().any(|start| name.starts_with(start))
        })
}

/// The index of the frame that a person would look at first: the innermost
/// one with a name that is not a library's.
pub fn culprit(stack: &[Frame]) -> Option<usize> {
    stack
        .iter()
        .position(|frame| frame.function.is_some() && !is_library(frame))
        .or_else(|| stack.iter().position(|frame| frame.function.is_some()))
        .or(if stack.is_empty() { None } else { Some(0) })
}

/// A function's name in at most `room` columns: first the arguments of
/// functions are left out, then those of templates, then the middle.
pub fn shorten(name: &str, room: usize) -> Cow<'_, str> {
    if columns(name) <= room {
        return Cow::Borrowed(name);
    }
    let mut short = collapse(name, '(', ')');
    if columns(&short) > room {
        short.truncate(short.trim_end_matches("(...)").len());
    }
    if columns(&short) > room {
        short = collapse(&short, '<', '>');
    }
    Cow::Owned(shorten_middle(&short, room).into_owned())
}

/// Replaces what stands between outermost brackets that follow a name.
/// `operator()`, `operator<` and the like are no brackets, nor is
/// `(anonymous namespace)` or the `<T as Trait>` that begins a Rust path.
fn collapse(name: &str, open: char, close: char) -> String {
    const PLACEHOLDER: &str = "...";
    let mut result = String::with_capacity(name.len());
    let mut depth = 0u32;
    let mut rest = name;
    while let Some(character) = rest.chars().next() {
        if depth == 0
            && let Some(operator) = operator_prefix(rest)
            && !result.ends_with(|c: char| c.is_alphanumeric() || c == '_')
        {
            result.push_str(operator);
            rest = &rest[operator.len()..];
            continue;
        }
        // An arrow inside of brackets is not their end.
        if depth > 0 && rest.starts_with("->") {
            rest = &rest[2..];
            continue;
        }
        if character == open && (depth > 0 || follows_name(&result)) {
            if depth == 0 {
                result.push(open);
                result.push_str(PLACEHOLDER);
            }
            depth += 1;
        } else if character == close && depth > 0 {
            depth -= 1;
            if depth == 0 {
                result.push(close);
            }
        } else if depth == 0 {
            result.push(character);
        }
        rest = &rest[character.len_utf8()..];
    }
    result
}

fn follows_name(before: &str) -> bool {
    before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '>' | ')' | ']' | '}'))
        || before.ends_with("operator()")
        || (before.ends_with("::") && before.len() > 2)
            && !before.ends_with("(anonymous namespace)::")
}

fn operator_prefix(text: &str) -> Option<&str> {
    const OPERATORS: &[&str] = &[
        "operator()",
        "operator<=>",
        "operator<<=",
        "operator>>=",
        "operator->*",
        "operator->",
        "operator<<",
        "operator>>",
        "operator<=",
        "operator>=",
        "operator<",
        "operator>",
        "(anonymous namespace)",
    ];
    OPERATORS.iter().copied().find(|operator| text.starts_with(operator))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that allocator and container code of C, C++ and Rust is known.
    #[test]
    fn boilerplate() {
        for name in [
            "operator new(unsigned long)",
            "std::vector<int, std::allocator<int> >::push_back(int const&)",
            "void std::vector<int>::_M_realloc_insert<int>(int&&)",
            "<alloc::vec::Vec<u8> as core::clone::Clone>::clone",
            "alloc::raw_vec::finish_grow",
            "strdup",
            "malloc@GLIBC_2.2.5",
            "xmalloc.part.0",
        ] {
            assert!(is_boilerplate(name), "{name}");
        }
        for name in [
            "main",
            "mallory",
            "operator_panel()",
            "Session::Session(std::string)",
            "Session* make()",
            "strdup_error",
        ] {
            assert!(!is_boilerplate(name), "{name}");
        }
    }

    /// Check that names lose arguments before they lose themselves.
    #[test]
    fn shortening() {
        let cases = [
            ("short(int)", 20, "short(int)"),
            (
                "app::Cache<std::string, int>::insert(std::string, int)",
                45,
                "app::Cache<std::string, int>::insert(...)",
            ),
            (
                "app::Cache<std::string, int>::insert(std::string, int)",
                30,
                "app::Cache<...>::insert",
            ),
            (
                "<app::Thing<A> as Trait<B>>::run::<Long>",
                38,
                "<app::Thing<...> as Trait<...>>::run::<...>",
            ),
            (
                "(anonymous namespace)::grow(unsigned long, unsigned long)",
                34,
                "(anonymous namespace)::grow(...)",
            ),
            ("Big::operator()(std::pair<int, int>) const", 30, "Big::operator()(...) const"),
            (
                "std::ostream& operator<< <char>(std::ostream&, char)",
                40,
                "std::ostream& operator<< <char>(...)",
            ),
        ];
        for (name, room, expected) in cases {
            let expected = shorten_middle(expected, room);
            assert_eq!(shorten(name, room), expected, "{name}");
        }
    }

    /// Check that brackets that never close do no harm.
    #[test]
    fn unbalanced() {
        for name in [
            "a<<<<<<<<<<<<<<<<<<<",
            "a(((((((((((((((((((((",
            ">>>>>>)))))))))))))))))))",
            "operator<operator<operator<",
        ] {
            assert!(columns(&shorten(name, 12)) <= 12);
        }
    }

    /// Check that the first frame that is not boilerplate is blamed, and that
    /// there is always somebody to blame in a stack that has frames.
    #[test]
    fn blame() {
        let frame = |function: Option<&str>| Frame {
            function: function.map(str::to_owned),
            ..Frame::default()
        };
        let stack = [frame(Some("operator new(unsigned long)")), frame(None), frame(Some("grow"))];
        assert_eq!(culprit(&stack), Some(2));
        assert_eq!(culprit(&stack[..2]), Some(0));
        assert_eq!(culprit(&stack[1..2]), Some(0));
        assert_eq!(culprit(&[]), None);
    }

    /// Check that what Rust's library does for a program is not blamed, and that
    /// the program's own implementation of a library's trait is.
    #[test]
    fn rust_library() {
        let frame = |function: &str, file: &str| Frame {
            function: Some(function.to_owned()),
            file: Some(file.to_owned()),
            ..Frame::default()
        };
        let stack = [
            frame(
                "<u8 as alloc::vec::spec_from_elem::SpecFromElem>::from_elem",
                "/rustc/59807616/library/alloc/src/vec/spec_from_elem.rs",
            ),
            frame("<shop::Cart as core::clone::Clone>::clone", "/src/shop/cart.rs"),
        ];
        assert_eq!(culprit(&stack), Some(1));
    }
}
