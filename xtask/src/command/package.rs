//! `cargo xtask package`: a Debian package, by dpkg-deb.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::build;
use crate::process::{self, say};
use crate::{toolchain, workspace};

/// What it takes besides a compiler.
const PACKAGES: [&str; 2] = ["dpkg-dev", "gzip"];

/// Files as they are in the workspace, and where they go.
const FILES: [(&str, &str); 6] = [
    ("systemd/leakd.service", "usr/lib/systemd/system/leakd.service"),
    ("systemd/leakd.sysusers", "usr/lib/sysusers.d/leakd.conf"),
    ("systemd/leakd.toml", "etc/leakd/leakd.toml"),
    ("docs/PROTOCOL.md", "usr/share/doc/leakd/PROTOCOL.md"),
    ("docs/REPORT.md", "usr/share/doc/leakd/REPORT.md"),
    ("docs/VERDICTS.md", "usr/share/doc/leakd/VERDICTS.md"),
];

/// Completions: directory in docs/generated, and where each shell looks.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions"),
    ("zsh", "usr/share/zsh/vendor-completions"),
    ("fish", "usr/share/fish/vendor_completions.d"),
];

const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Builds it, in target/debian.
pub fn run(release: bool) -> Result<()> {
    toolchain::apt::ensure(&PACKAGES, &[], "make a Debian package")?;
    build::run(release)?;
    let top = workspace::target().join("debian");
    let root = top.join("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    programs(&root, release)?;
    for (from, to) in FILES {
        copy(&workspace::root().join(from), &root.join(to), 0o644)?;
    }
    generated(&root)?;
    documentation(&root)?;
    let architecture = process::output(Command::new("dpkg").arg("--print-architecture"))?;
    let architecture = architecture.trim();
    control(&top, &root, architecture)?;
    let name = format!("leakd_{}_{architecture}.deb", env!("CARGO_PKG_VERSION"));
    let package = top.join(name);
    // All is root's, whoever builds it.
    process::run(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "--build"])
            .args([&root, &package])
            .env("SOURCE_DATE_EPOCH", "0"),
    )?;
    say!("made {}", package.display());
    Ok(())
}

fn programs(root: &Path, release: bool) -> Result<()> {
    for (name, to) in [("leakd", "usr/sbin/leakd"), ("leakctl", "usr/bin/leakctl")] {
        let to = root.join(to);
        copy(&workspace::programs(release).join(name), &to, 0o755)?;
        process::run(Command::new("strip").arg("--strip-unneeded").arg(to))?;
    }
    Ok(())
}

fn generated(root: &Path) -> Result<()> {
    let from = workspace::root().join("docs/generated");
    for (shell, to) in COMPLETIONS {
        for file in list(&from.join("completions").join(shell))? {
            copy(&file, &root.join(to).join(name_of(&file)), 0o644)?;
        }
    }
    for page in list(&from.join("man"))? {
        let section = page.extension().context("a man page has a section")?.to_string_lossy();
        let to = root.join(format!("usr/share/man/man{section}")).join(name_of(&page));
        copy(&page, &to, 0o644)?;
        process::run(Command::new("gzip").args(["-9", "-n"]).arg(to))?;
    }
    Ok(())
}

fn documentation(root: &Path) -> Result<()> {
    let top = workspace::root();
    let to = root.join("usr/share/doc/leakd");
    let mut copyright = String::from("leakd may be used under either of two licences.\n");
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        write!(copyright, "\n\n{licence}\n\n{}", fs::read_to_string(top.join(licence))?)?;
    }
    fs::write(to.join("copyright"), copyright)?;
    copy(&top.join("CHANGELOG.md"), &to.join("changelog"), 0o644)?;
    process::run(Command::new("gzip").args(["-9", "-n"]).arg(to.join("changelog")))
}

/// The directory DEBIAN: what dpkg has to know.
fn control(top: &Path, root: &Path, architecture: &str) -> Result<()> {
    let debian = root.join("DEBIAN");
    for script in SCRIPTS {
        let from = workspace::root().join("systemd/debian").join(script);
        copy(&from, &debian.join(script), 0o755)?;
    }
    fs::write(debian.join("conffiles"), "/etc/leakd/leakd.toml\n")?;
    let size: u64 = files_below(root)?
        .iter()
        .filter_map(|file| fs::metadata(file).ok())
        .map(|data| data.len().div_ceil(1024))
        .sum();
    let text = format!(
        "Package: leakd\n\
         Version: {}\n\
         Architecture: {architecture}\n\
         Maintainer: {}\n\
         Section: admin\n\
         Priority: optional\n\
         Installed-Size: {size}\n\
         Depends: {}, init-system-helpers, systemd\n\
         Description: finds memory that programs take and never give back\n \
         leakd watches every process of a machine, traces those that grow with eBPF\n \
         within a budget, and names the lines that hold more and more memory.\n \
         leakctl asks it, or traces a process by itself.\n",
        env!("CARGO_PKG_VERSION"),
        maintainer(),
        libraries(top, root)?,
    );
    fs::write(debian.join("control"), text)?;
    Ok(())
}

/// Whoever builds a package by hand answers for it: as Debian's tools have it,
/// DEBFULLNAME and DEBEMAIL, else as git knows them, else the user.
fn maintainer() -> String {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let git = |key: &str| {
        let value = process::output(Command::new("git").args(["config", key])).ok()?;
        Some(value.trim().to_owned()).filter(|value| !value.is_empty())
    };
    let user = || variable("USER").unwrap_or_else(|| "root".to_owned());
    let host = || {
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        name.trim().to_owned()
    };
    let name = variable("DEBFULLNAME").or_else(|| git("user.name")).unwrap_or_else(user);
    let address = variable("DEBEMAIL")
        .or_else(|| git("user.email"))
        .unwrap_or_else(|| format!("{}@{}", user(), host()));
    // One line, in which the brackets mean something.
    let clean = |text: &str| text.replace(|one: char| one.is_control() || "<>".contains(one), "");
    format!("{} <{}>", clean(&name), clean(&address))
}

/// The packages that the programs' libraries come from, as dpkg-shlibdeps finds
/// them; it wants a source package to stand in.
fn libraries(top: &Path, root: &Path) -> Result<String> {
    let source = top.join("source");
    fs::create_dir_all(source.join("debian"))?;
    fs::write(
        source.join("debian/control"),
        "Source: leakd\n\nPackage: leakd\nArchitecture: any\n",
    )?;
    let mut command = Command::new("dpkg-shlibdeps");
    command.current_dir(&source).arg("-O");
    for program in ["usr/sbin/leakd", "usr/bin/leakctl"] {
        command.arg(root.join(program));
    }
    let output = process::output(&mut command)?;
    let depends = output.trim().strip_prefix("shlibs:Depends=");
    depends.map(str::to_owned).context("dpkg-shlibdeps says something else than it used to")
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let parent = to.parent().context("a file has a directory")?;
    fs::create_dir_all(parent)?;
    fs::copy(from, to).with_context(|| format!("{} cannot be copied", from.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode))?;
    Ok(())
}

fn name_of(path: &Path) -> PathBuf {
    path.file_name().map(PathBuf::from).unwrap_or_default()
}

/// The files of a directory; there must be some.
fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)
        .with_context(|| format!("{} cannot be listed", directory.display()))?;
    let files: Vec<PathBuf> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    if files.is_empty() {
        bail!("{} is empty", directory.display());
    }
    Ok(files)
}

fn files_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in list(directory)? {
        if path.is_dir() { files.extend(files_below(&path)?) } else { files.push(path) }
    }
    Ok(files)
}
