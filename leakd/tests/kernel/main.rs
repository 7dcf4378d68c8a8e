//! `leakctl kernel` on a kernel that leaks: `module/leaky.c` is loaded, and what
//! is said of it is compared with what the module counts, and with what the
//! kernel's own books say.
//!
//! It takes a machine whose kernel may be broken, and a module that fits it:
//! `cargo xtask vm` has both, and is who runs these tests. They are `#[ignore]`d
//! elsewhere.

#[path = "../support/host.rs"]
#[allow(dead_code, reason = "other test programs need the rest")]
mod host;
mod leaks;
mod load;
mod module;
mod restricted;
#[path = "../end_to_end/support/mod.rs"]
#[allow(dead_code, reason = "the end-to-end tests need the rest")]
mod support;
mod witness;
