//! The ways to probe that the running kernel has.

use std::sync::OnceLock;

use leakd::bpf::features::ProbeMethod;
use leakd::engine::Settings;

use super::trace::Trace;

/// The best way that this kernel has, as leakd finds it.
pub fn best() -> ProbeMethod {
    static BEST: OnceLock<ProbeMethod> = OnceLock::new();
    *BEST.get_or_init(|| Trace::start(Settings::default()).engine().method())
}

/// Those of the ways that this kernel has; instead of what it has not, its best.
pub fn at_hand(wanted: &[ProbeMethod]) -> Vec<ProbeMethod> {
    let best = best();
    let mut methods: Vec<_> = wanted
        .iter()
        .map(|method| if rank(*method) > rank(best) { best } else { *method })
        .collect();
    methods.dedup();
    methods
}

/// Higher is better.
fn rank(method: ProbeMethod) -> u8 {
    match method {
        ProbeMethod::Perf => 0,
        ProbeMethod::Multi => 1,
        ProbeMethod::Session => 2,
    }
}

/// Check that leakd finds what kernels of this version are known to have: else
/// the tests, which use what it finds, would not notice.
#[test]
fn best_is_found() {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("procfs");
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>());
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        panic!("which version is {release}?");
    };
    let known = match (major, minor) {
        (6, 13..) | (7.., _) => ProbeMethod::Session,
        (6, 6..) => ProbeMethod::Multi,
        _ => ProbeMethod::Perf,
    };
    assert_eq!(best(), known, "on Linux {release}");
}
