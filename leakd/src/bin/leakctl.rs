//! leakctl, the client.
fn main() {}
