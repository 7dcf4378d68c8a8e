//! The kernels that there are.

use anyhow::{Result, bail};

/// Debian's archives that hold them, as lines for apt's list of sources behind
/// the mirror's address. The oldest first. Not all of trixie has kernels: the C
/// library that the programs beside the newest kernels want is there.
pub const SUITES: [(&str, &str); 4] = [
    ("debian-security", "bookworm-security"),
    ("debian", "trixie"),
    ("debian-security", "trixie-security"),
    ("debian", "trixie-backports"),
];

/// A kernel of Debian's for virtual machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// What it is called on the command line: major and minor version.
    pub name: &'static str,
}

/// One for each way to probe: perf events, uprobe_multi, sessions.
pub const KERNELS: [Kernel; 3] =
    [Kernel { name: "6.1" }, Kernel { name: "6.12" }, Kernel { name: "7.2" }];

impl Kernel {
    /// The kernel's version as in `uname -r`, if a package is one of this
    /// kernel for virtual machines: `linux-image-6.1.0-56-cloud-amd64`.
    pub fn release<'a>(&self, package: &'a str) -> Option<&'a str> {
        let release = package.strip_prefix("linux-image-")?;
        let patch = release.strip_prefix(self.name)?.strip_prefix('.')?;
        let debian = patch.strip_suffix("-cloud-amd64")?;
        debian.starts_with(|sign: char| sign.is_ascii_digit()).then_some(release)
    }
}

/// The kernels of these names; all of them if there are no names.
pub fn chosen(names: &[String]) -> Result<Vec<Kernel>> {
    if names.is_empty() {
        return Ok(KERNELS.to_vec());
    }
    let mut chosen = Vec::new();
    for name in names {
        let Some(kernel) = KERNELS.iter().find(|kernel| kernel.name == name) else {
            let known = KERNELS.map(|kernel| kernel.name).join(", ");
            bail!("there is no kernel {name:?}; there are: {known}");
        };
        if !chosen.contains(kernel) {
            chosen.push(*kernel);
        }
    }
    Ok(chosen)
}

/// The numbers in a version, which is how versions compare.
pub fn numbers(version: &str) -> Vec<u64> {
    let parts = version.split(|sign: char| !sign.is_ascii_digit());
    parts.filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that packages of a kernel are told from those of others and from
    /// what else Debian makes of a kernel.
    #[test]
    fn knows_packages() {
        let [old, middle, new] = KERNELS;
        let of_old = "linux-image-6.1.0-56-cloud-amd64";
        assert_eq!(old.release(of_old), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(middle.release(of_old), None);
        assert_eq!(old.release("linux-image-6.12.117+deb12-cloud-amd64"), None);
        assert!(middle.release("linux-image-6.12.117+deb12-cloud-amd64").is_some());
        assert!(new.release("linux-image-7.2.12+deb13-cloud-amd64").is_some());
        for other in [
            "linux-image-6.1.0-56-cloud-amd64-dbg",
            "linux-image-6.12.117+deb12-cloud-amd64-unsigned",
            "linux-image-6.1-cloud-amd64",
            "linux-image-6.1.0-56-amd64",
            "linux-headers-6.1.0-56-cloud-amd64",
        ] {
            assert!(KERNELS.iter().all(|kernel| kernel.release(other).is_none()), "{other}");
        }
    }

    /// Check that a name that there is not is refused with those that there
    /// are, and that each kernel is run once.
    #[test]
    fn chooses_kernels() {
        let choose = |names: &[&str]| {
            chosen(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(choose(&[]).expect("all"), KERNELS);
        assert_eq!(choose(&["7.2", "6.1", "7.2"]).expect("two"), [KERNELS[2], KERNELS[0]]);
        let error = choose(&["5.4"]).expect_err("unknown").to_string();
        assert_eq!(error, "there is no kernel \"5.4\"; there are: 6.1, 6.12, 7.2");
    }

    /// Check that versions compare as numbers.
    #[test]
    fn compares_versions() {
        assert!(numbers("7.2.9+deb13-cloud-amd64") < numbers("7.2.12+deb13-cloud-amd64"));
        assert!(numbers("6.1.0-9-cloud-amd64") < numbers("6.1.0-56-cloud-amd64"));
    }
}
