//! Debian packages.

use std::path::Path;
use std::process::Command;
use std::sync::Once;

use anyhow::{Context, Result, bail};

use crate::process::{self, say};

/// A service that a package starts and enables by itself.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// The package that brings it.
    pub package: &'static str,
    /// The systemd unit.
    pub unit: &'static str,
}

/// Run as root, with the packages as arguments.
///
/// No service is started: Debian's maintainer scripts ask policy-rc.d, for
/// which 101 is "not allowed" (invoke-rc.d(8)). An administrator's own
/// policy-rc.d stays as it is. `--no-remove`: rustc-web conflicts with other
/// packages of Rust, and those are not ours to remove.
const INSTALL: &str = r#"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get install --quiet --quiet --yes --no-remove --no-install-recommends "$@" >/dev/null
"#;

/// Installs those of the packages that are missing; `reason` says what for. A
/// service that comes with one of them is neither started nor enabled.
pub fn ensure(packages: &[&str], services: &[Service], reason: &str) -> Result<()> {
    let missing: Vec<&str> =
        packages.iter().copied().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !process::in_path("apt-get") {
        bail!(
            "cannot {reason}: this system has no apt-get; what is needed, by Debian's names: {list}"
        );
    }
    update();
    if let Some(unknown) = missing.iter().find(|package| candidate(package).is_none()) {
        bail!("cannot {reason}: apt knows no package {unknown} (is the network there?)");
    }
    say!("apt-get install {list}");
    let mut install = process::as_root("sh", &[], reason)?;
    install.args(["-e", "-c", INSTALL, "sh"]).args(&missing);
    process::run(&mut install).with_context(|| format!("apt-get could not {reason}: {list}"))?;
    for service in services.iter().filter(|service| missing.contains(&service.package)) {
        disable(service)?;
    }
    Ok(())
}

/// The version that apt would install; `None` if it knows no such package.
pub fn candidate(package: &str) -> Option<String> {
    let lookup = || {
        let output =
            Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C").output();
        parse_candidate(&String::from_utf8(output.ok()?.stdout).ok()?)
    };
    lookup().or_else(|| {
        update();
        lookup()
    })
}

/// Fetches the lists of packages, once: a fresh machine has none. That it fails
/// is told by what is then missing.
fn update() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if !process::in_path("apt-get") {
            return;
        }
        say!("apt-get update");
        let updated = process::as_root("apt-get", &[], "fetch the lists of Debian packages")
            .and_then(|mut apt| process::run(apt.args(["update", "--quiet", "--quiet"])));
        if let Err(error) = updated {
            say!("{error:#}");
        }
    });
}

fn is_installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", package]);
    query.output().is_ok_and(|output| output.stdout.starts_with(b"installed"))
}

/// Keeps a service from starting at the next boot. A package enables it even
/// where there is no systemd (yet), and so no systemctl.
fn disable(service: &Service) -> Result<()> {
    let unit = service.unit;
    let wanted = Path::new("/etc/systemd/system/multi-user.target.wants").join(unit);
    if !wanted.is_symlink() {
        return Ok(());
    }
    say!("{unit} is not needed as a service: not enabled");
    let reason = format!("keep {unit} from starting at the next boot");
    let mut command = if process::in_path("systemctl") {
        let mut systemctl = process::as_root("systemctl", &[], &reason)?;
        systemctl.args(["--quiet", "disable", unit]);
        systemctl
    } else {
        let mut rm = process::as_root("rm", &[], &reason)?;
        rm.arg("-f").arg(wanted);
        rm
    };
    process::run(&mut command)
}

fn parse_candidate(policy: &str) -> Option<String> {
    let line = policy.lines().find_map(|line| line.trim_start().strip_prefix("Candidate: "))?;
    (line != "(none)").then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that apt's answer is read, that of a known package without any
    /// version included.
    #[test]
    fn reads_candidates() {
        let known = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n";
        assert_eq!(parse_candidate(known).as_deref(), Some("1.96.0+dfsg1-1~deb12u2"));
        assert_eq!(parse_candidate("x:\n  Installed: (none)\n  Candidate: (none)\n"), None);
        assert_eq!(parse_candidate(""), None);
    }
}
