//! The kernel's own books: `slub_debug=U` notes who holds each block of a cache,
//! and /proc/vmallocinfo who has mapped each area.

use std::fs;

/// Blocks of a slab cache that were allocated by a function of the module and
/// not freed.
pub fn slab(cache: &str, function: &str) -> u64 {
    let path = format!("/sys/kernel/debug/slab/{cache}/alloc_traces");
    let text = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{path}: {error}: boot with slub_debug=U,{cache}"));
    // "    100 function+0x1f/0x30 [leaky] age=...", and the stack below it.
    let counts = text.lines().filter_map(|line| {
        let (count, rest) = line.trim_start().split_once(' ')?;
        (rest.starts_with(&format!("{function}+")) && rest.contains("[leaky]"))
            .then(|| count.parse::<u64>().expect("a count"))
    });
    counts.sum()
}

/// Areas that a function of the module has mapped.
pub fn vmalloc(function: &str) -> u64 {
    let text = fs::read_to_string("/proc/vmallocinfo").expect("we are root");
    text.lines().filter(|line| line.contains(&format!(" {function}+"))).count() as u64
}
