//! Allocators other than libc's.

use crate::support::{
    planted::watch,
    programs::{program, system_library},
};
use std::process::Command;

fn finds_with_preloaded(library: &str, package: &str) {
    let mut command = Command::new(program("orders_no_debug"));
    command.env("LD_PRELOAD", system_library(library, package));
    watch(command, &[]).assert_leak("leak_orders", 200);
}

/// Check that the leak is found, once, where jemalloc replaces malloc.
#[test]
fn jemalloc() {
    finds_with_preloaded("libjemalloc.so.2", "libjemalloc2");
}

/// Check that the leak is found, once, where tcmalloc replaces malloc.
#[test]
fn tcmalloc() {
    finds_with_preloaded("libtcmalloc_minimal.so.4", "libtcmalloc-minimal4");
}

/// Check that the leak is found, once, where mimalloc replaces malloc.
#[test]
fn mimalloc() {
    finds_with_preloaded("libmimalloc.so.2", "libmimalloc2.0");
}

/// Check that C++ on tcmalloc, whose operator new does not end in malloc,
/// counts each block once.
#[test]
fn tcmalloc_operator_new() {
    let mut command = Command::new(program("orders_cpp"));
    command.env("LD_PRELOAD", system_library("libtcmalloc_minimal.so.4", "libtcmalloc-minimal4"));
    watch(command, &[]).assert_leak("leak_orders", 316);
}

/// Check that C++ on jemalloc, whose operator new does not end in malloc,
/// counts each block once.
#[test]
fn jemalloc_operator_new() {
    let mut command = Command::new(program("orders_cpp"));
    command.env("LD_PRELOAD", system_library("libjemalloc.so.2", "libjemalloc2"));
    watch(command, &[]).assert_leak("leak_orders", 316);
}

/// Check that an allocator that the user names is traced.
#[test]
fn named_by_the_user() {
    watch(
        Command::new(program("pool")),
        &["--alloc", "xpool_alloc:size=2,ret", "--free", "xpool_free:ptr=2"],
    )
    .assert_leak("leak_cells", 72);
}
