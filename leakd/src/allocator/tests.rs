//! Discovery in the allocators of the machine and in compiled programs.

use std::fs::File;
use std::path::Path;

use super::*;
use crate::elf::{ElfObject, test_program::TestProgram};

fn object(path: impl AsRef<Path>) -> ElfObject {
    let path = path.as_ref();
    let file = File::open(path)
        .unwrap_or_else(|error| panic!("{}: {error}; is its package installed?", path.display()));
    ElfObject::read(&file).unwrap()
}

fn find(path: impl AsRef<Path>) -> Discovery {
    discover(&object(path), &[], Emulation::of_running_kernel()).unwrap()
}

#[test]
fn table() {
    for path in [
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2",
        "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4",
        "/usr/lib/x86_64-linux-gnu/libmimalloc.so.2",
        "/usr/lib/x86_64-linux-musl/libc.so",
        "/usr/lib/x86_64-linux-gnu/libasan.so.8",
        "/lib64/ld-linux-x86-64.so.2",
        "/usr/bin/redis-server",
        "/usr/lib/x86_64-linux-gnu/libstdc++.so.6",
    ] {
        let now = std::time::Instant::now();
        let found = find(path);
        eprintln!("{path} {:?}", now.elapsed());
        for allocator in found.allocators {
            eprintln!("  {:?} {:?}", allocator.kind, allocator.prefix);
            for p in allocator.probes {
                eprintln!(
                    "    {:<36} {:>3} {:?} {:?} {:?}{}",
                    p.symbol,
                    p.placement.skipped,
                    p.placement.cost,
                    p.placement.function,
                    p.placement.arguments,
                    if p.placement.indirect_jumps { " indirect" } else { "" }
                );
            }
        }
        for s in found.skipped {
            eprintln!("   - {} {:x}: {}", s.symbol, s.address, s.because);
        }
    }
    let _ = TestProgram::c;
}
