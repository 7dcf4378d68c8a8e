//! The planted leak is the first site in programs of every kind.

use crate::support::planted::{assert_finds, watch};
use crate::support::programs::program;
use std::process::Command;

/// Check that a C program at -O2 shows its leak first, with file and line.
#[test]
fn c_with_debug_information() {
    let mut found = watch(Command::new(program("orders")), &[]);
    let site = found.report.target(found.program.pid()).first_site("leak_orders");
    assert!(
        site.stack().any(|frame| frame.function() == Some("main")),
        "the stack does not lead to main: {}",
        site.0
    );
    let frame = site;
    let frame = frame.allocating_frame().expect("first_site has looked at it");
    let file = frame.0["file"].as_str().expect("there is debug information");
    assert!(file.ends_with("orders.c"), "another file: {}", frame.0);
    let source =
        std::fs::read_to_string(crate::support::programs::source_folder().join("orders.c"))
            .expect("the source is there");
    let line =
        1 + source.lines().position(|line| line.contains("malloc(200)")).expect("it is there");
    assert_eq!(frame.0["line"], line, "another line: {}", frame.0);
    found.assert_leak("leak_orders", 200);
}

/// Check that a C program at -O2 without debug information shows its leak.
#[test]
fn c_without_debug_information() {
    assert_finds("orders_no_debug", "leak_orders", 200);
}

/// Check that a C++ program with exceptions shows its leaked `new Order`.
#[test]
fn cpp_operator_new() {
    assert_finds("orders_cpp", "leak_orders", 316);
}

/// Check that a Rust program shows its leaked box.
#[test]
fn rust_box() {
    assert_finds("orders_rs", "leak_orders", 264);
}

/// Check that a statically linked glibc program shows its leak.
#[test]
fn static_glibc() {
    assert_finds("orders_static", "leak_orders", 200);
}

/// Check that a static position-independent program shows its leak.
#[test]
fn static_pie_glibc() {
    assert_finds("orders_static_pie", "leak_orders", 200);
}

/// Check that a program on musl's shared library shows its leak.
#[test]
fn musl_shared() {
    assert_finds("orders_musl", "leak_orders", 200);
}

/// Check that a program with musl linked in shows its leak.
#[test]
fn musl_static() {
    assert_finds("orders_musl_static", "leak_orders", 200);
}

/// Check that among 64 threads the one that leaks is found.
#[test]
fn sixty_four_threads() {
    assert_finds("threads", "leak_orders", 136);
}
