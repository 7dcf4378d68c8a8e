//! leakd, the daemon.
fn main() {}
