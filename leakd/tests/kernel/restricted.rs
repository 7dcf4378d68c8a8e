//! What `leakctl kernel` does where the kernel keeps things to itself.
//!
//! A kernel that is locked down stays so until it boots again: the last of these
//! tests is the last one of all (they run one by one, in the order of their
//! names).

use std::fs;

use crate::leaks::{attached, blocks, report};
use crate::module::{FORGOTTEN, Module, TAKEN};
use crate::support::invocation::leakctl;

const RESTRICT: &str = "/proc/sys/kernel/kptr_restrict";
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// Sets it back at its end.
struct Restricted(String);

impl Restricted {
    fn to(level: &str) -> Self {
        let before = fs::read_to_string(RESTRICT).expect("a kernel from 2.6.38 on");
        fs::write(RESTRICT, level).expect("we are root");
        Self(before)
    }
}

impl Drop for Restricted {
    fn drop(&mut self) {
        let _ = fs::write(RESTRICT, &self.0);
    }
}

/// Check that with addresses for root alone nothing is missing, and that where
/// the kernel hides them from everybody, blocks are counted all the same, a line
/// says why they have no names, and the doctor says so, too.
#[test]
#[ignore = "needs the module: run by cargo xtask vm"]
fn hidden_addresses() {
    let module = Module::load();
    for level in ["0", "1", "2"] {
        let restricted = Restricted::to(level);
        let mut leakctl = attached(&["--only", "kmalloc"]);
        if level == "2" {
            leakctl.wait_said("kptr_restrict");
        }
        module.run("leak kmalloc");
        let report = report(leakctl);
        let kernel = report.targets().next().expect("the kernel");
        let named = |site: &crate::support::report::Site<'_>| {
            site.stack().any(|frame| frame.function() == Some("leaky_kmalloc_leak"))
        };
        let seen = blocks(kernel.sites().filter(named));
        let taken = [FORGOTTEN, TAKEN, TAKEN - FORGOTTEN];
        if level == "2" {
            assert_eq!(seen, [0; 3], "nothing has a name");
            let by_address = kernel.sites().find(|site| blocks([*site].into_iter()) == taken);
            assert!(by_address.is_some(), "{:#}", report.0);
        } else {
            assert_eq!(seen, taken, "kptr_restrict={level}");
        }
        let doctor = leakctl_doctor();
        assert_eq!(doctor.contains("have no names"), level == "2", "{level}: {doctor}");
        module.run("release");
        drop(restricted);
    }
}

fn leakctl_doctor() -> String {
    leakctl(["doctor"]).stdout
}

/// Check that a kernel that keeps its integrity is traced as before, and that one
/// that keeps its memory to itself is not, with a line that says why.
#[test]
#[ignore = "needs the module: run by cargo xtask vm"]
fn lockdown() {
    if !std::path::Path::new(LOCKDOWN).exists() {
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "securityfs", "none", "/sys/kernel/security"]);
        assert!(mount.status().expect("mount").success(), "Debian's kernels have securityfs");
    }
    let module = Module::load();
    fs::write(LOCKDOWN, "integrity").expect("a kernel that can be locked down");
    let tracing = attached(&[]);
    module.run("leak all");
    let report = report(tracing);
    let kernel = report.targets().next().expect("the kernel");
    for function in ["leaky_kmalloc_leak", "leaky_cache_leak", "leaky_vmalloc_leak"] {
        let sites = kernel.sites().filter(|site| {
            let kind = &site.0["kernel"]["kind"];
            site.stack().any(|frame| frame.function() == Some(function))
                && kind.as_str().is_some_and(|kind| function.contains(kind))
                && site.0["kernel"]["cache"] != "vmap_area"
        });
        assert_eq!(blocks(sites)[0], FORGOTTEN, "{function}");
    }
    fs::write(LOCKDOWN, "confidentiality").expect("a kernel that can be locked down");
    leakctl(["kernel", "--for", "1s"]).assert_refused(&["lockdown"]);
    let doctor = leakctl_doctor();
    assert!(doctor.contains("confidentiality"), "{doctor}");
    module.run("release");
}
