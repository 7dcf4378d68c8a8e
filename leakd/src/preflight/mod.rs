//! What this machine lets leakd do: looked at once, at start, before anything
//! of another process is touched.

use std::fs;

/// The oldest kernel whose uprobes carry a cookie.
const OLDEST_KERNEL: (u32, u32) = (5, 15);

/// Capabilities that tracing takes, with their bits (uapi/linux/capability.h).
const CAPABILITIES: [(&str, u32); 4] =
    [("CAP_SYS_PTRACE", 19), ("CAP_SYS_ADMIN", 21), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];

/// What was found out about the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The kernel's release, as uname(2) tells it.
    pub release: String,
    /// The effective user is root.
    pub root: bool,
    /// The effective capabilities, one bit each.
    pub capabilities: u64,
    /// /sys/kernel/btf/vmlinux is there.
    pub btf: bool,
    /// The kernel's lockdown: `none`, `integrity`, `confidentiality`; empty
    /// where it has none.
    pub lockdown: String,
    /// CONFIG_UPROBES: the perf event source is there.
    pub uprobes: bool,
}

/// Why nothing can be traced on this machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PreflightError {
    /// No root.
    #[error("tracing needs root: run it with sudo")]
    NotRoot,
    /// Root, but not all of it.
    #[error("missing {0}: run it as root outside of containers, or give the container these")]
    Capabilities(String),
    /// The kernel is too old.
    #[error("this kernel ({0}) is too old: leakd needs Linux 5.15 or later")]
    OldKernel(String),
    /// The kernel has no BTF.
    #[error(
        "this kernel ({0}) has no BTF: leakd needs one built with CONFIG_DEBUG_INFO_BTF, \
         as distributions' kernels are"
    )]
    NoBtf(String),
    /// The kernel is locked down.
    #[error(
        "kernel lockdown is `confidentiality`, which forbids tracing: \
         boot with lockdown=integrity or none"
    )]
    Lockdown,
    /// The kernel has no uprobes.
    #[error("this kernel ({0}) has no uprobes: leakd needs one built with CONFIG_UPROBE_EVENTS")]
    NoUprobes(String),
}

impl Facts {
    /// Looks at the machine.
    pub fn gather() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let capabilities = status
            .lines()
            .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
            .unwrap_or(0);
        let exists = |path: &str| fs::metadata(path).is_ok();
        Self {
            release: release(),
            root: nix::unistd::geteuid().is_root(),
            capabilities,
            btf: exists("/sys/kernel/btf/vmlinux"),
            lockdown: fs::read_to_string("/sys/kernel/security/lockdown")
                .map(|text| chosen(&text))
                .unwrap_or_default(),
            uprobes: exists("/sys/bus/event_source/devices/uprobe/type"),
        }
    }

    /// The capabilities that are missing, by name.
    pub fn missing_capabilities(&self) -> Vec<&'static str> {
        CAPABILITIES
            .iter()
            .filter(|(_, bit)| self.capabilities & (1 << bit) == 0)
            .map(|(name, _)| *name)
            .collect()
    }

    /// Whether tracing can be tried; the first thing that is in the way.
    pub fn check(&self) -> Result<(), PreflightError> {
        self.check_kernel()?;
        if !self.uprobes {
            return Err(PreflightError::NoUprobes(self.release.clone()));
        }
        Ok(())
    }

    /// Whether tracing of the kernel's memory can be tried, which takes no uprobes.
    pub fn check_kernel(&self) -> Result<(), PreflightError> {
        let missing = self.missing_capabilities();
        if !self.root && !missing.is_empty() {
            return Err(PreflightError::NotRoot);
        }
        if !missing.is_empty() {
            return Err(PreflightError::Capabilities(missing.join(", ")));
        }
        if version(&self.release).is_some_and(|version| version < OLDEST_KERNEL) {
            return Err(PreflightError::OldKernel(self.release.clone()));
        }
        if self.lockdown == "confidentiality" {
            return Err(PreflightError::Lockdown);
        }
        if !self.btf {
            return Err(PreflightError::NoBtf(self.release.clone()));
        }
        Ok(())
    }
}

/// The kernel's release, as uname(2) tells it.
pub fn release() -> String {
    nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// The machine's name, as uname(2) tells it.
pub fn host() -> String {
    nix::sys::utsname::uname()
        .map(|name| name.nodename().to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// The word in brackets: `none [integrity] confidentiality`.
fn chosen(text: &str) -> String {
    let inside = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    inside.map(|(word, _)| word.to_owned()).unwrap_or_default()
}

/// Major and minor number of a release such as `6.12.9+deb13-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            release: "6.18.44".into(),
            root: true,
            capabilities: u64::MAX,
            btf: true,
            lockdown: "integrity".into(),
            uprobes: true,
        }
    }

    /// Check that each thing that is in the way is named, and nothing else is.
    #[test]
    fn obstacles_are_named() {
        assert_eq!(good().check(), Ok(()));
        let check = |change: fn(&mut Facts)| {
            let mut facts = good();
            change(&mut facts);
            facts.check().unwrap_err().to_string()
        };
        assert!(
            check(|facts| {
                facts.root = false;
                facts.capabilities = 0;
            })
            .contains("sudo")
        );
        assert!(check(|facts| facts.capabilities &= !(1 << 39)).contains("CAP_BPF"));
        assert!(check(|facts| facts.release = "5.10.0-30-amd64".into()).contains("5.15"));
        assert!(check(|facts| facts.lockdown = "confidentiality".into()).contains("lockdown"));
        assert!(check(|facts| facts.btf = false).contains("CONFIG_DEBUG_INFO_BTF"));
        assert!(check(|facts| facts.uprobes = false).contains("CONFIG_UPROBE_EVENTS"));
    }

    /// Check that an ordinary user with the capabilities may trace.
    #[test]
    fn capabilities_do_without_root() {
        assert_eq!(Facts { root: false, ..good() }.check(), Ok(()));
    }

    /// Check the formats of /sys/kernel/security/lockdown and of releases.
    #[test]
    fn formats() {
        assert_eq!(chosen("none [integrity] confidentiality\n"), "integrity");
        assert_eq!(chosen("none\n"), "");
        assert_eq!(version("6.12.9+deb13-amd64"), Some((6, 12)));
        assert_eq!(version("strange"), None);
    }
}
