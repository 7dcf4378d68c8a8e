//! What whoever runs the tests says of the machine that they run on.
//!
//! Both variables are set where a machine is emulated (`cargo xtask vm`), which
//! is some fifty times slower. Neither makes a test check less strictly.

/// Where a test repeats itself, or does a thing many times, it does so this
/// many times less often.
const SCALE: &str = "LEAKD_TEST_SCALE";

/// The programs under test have been compiled already, by the test
/// `compiles_programs`: a compiler takes long there.
const COMPILED: &str = "LEAKD_TEST_COMPILED";

fn scale() -> u64 {
    std::env::var(SCALE).map_or(1, |scale| match scale.parse() {
        Ok(scale @ 1..) => scale,
        _ => panic!("{SCALE} is {scale:?}, and not a number above 0"),
    })
}

/// Whether the machine is emulated.
#[allow(dead_code, reason = "only one of the test programs needs it")]
pub fn is_emulated() -> bool {
    scale() > 1
}

/// So many of `count`, but at least `least`.
///
/// # Panics
/// If the variable is set to anything but a number above 0.
pub fn scaled(count: u64, least: u64) -> u64 {
    (count / scale()).max(least).min(count)
}

/// Whether compiled programs that are there are to be taken as they are.
pub fn programs_are_compiled() -> bool {
    std::env::var_os(COMPILED).is_some()
}

/// More than `count`, of what gives leakd time to notice something.
#[allow(dead_code, reason = "only one of the test programs needs it")]
pub fn stretched(count: u64) -> u64 {
    count * scale()
}
