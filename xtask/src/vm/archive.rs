//! Kernels, what modules of theirs are built with, and newer programs, out of
//! Debian's archives, kept in a cache: unpacked, not installed.
//!
//! apt does it, with lists of its own: nothing of the machine's changes. It
//! checks the lists by Debian's signatures and the packages by the lists.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::kernel::{self, Kernel, SUITES};
use super::{REASON, headers};
use crate::process::{self, say};
use crate::toolchain::apt;

/// Names another mirror of Debian's than [`MIRROR`].
const MIRROR_VARIABLE: &str = "LEAKD_DEBIAN_MIRROR";
const MIRROR: &str = "http://deb.debian.org";

/// Brings the keys that the archives are signed with.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An unpacked kernel.
#[derive(Clone, Debug)]
pub struct Image {
    /// As `uname -r` says it.
    pub release: String,
    /// What the machine boots.
    pub kernel: PathBuf,
    /// Its modules, below which are `kernel` and `modules.builtin`.
    pub modules: PathBuf,
}

/// The directory for kernels, `$XDG_CACHE_HOME/leakd/vm`.
pub fn cache() -> Result<PathBuf> {
    cache_of("vm")
}

/// The directory for what is downloaded for some purpose.
pub fn cache_of(purpose: &str) -> Result<PathBuf> {
    let absolute =
        |name| env::var_os(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME says where downloads can be kept")?;
    Ok(cache.join("leakd").join(purpose))
}

/// The kernel, downloaded if the cache does not have it, and if `headers` what
/// modules for it are built with.
pub fn ensure(kernel: Kernel, headers: bool) -> Result<Image> {
    let cache = cache()?;
    let whole = |image: &Image| !headers || headers::of(&cache, &image.release).is_some();
    if let Some(image) = cached(&cache, kernel).filter(whole) {
        return Ok(image);
    }
    // Debian keeps the headers of the newest only, so that is what we take.
    let archive = Archive::open(&cache, &SUITES).with_context(|| {
        let place = cache.join("kernels/RELEASE");
        let name = kernel.name;
        format!("no kernel {name} (one can be unpacked to {})", place.display())
    })?;
    let release = archive.newest(kernel)?;
    let of_kernel = || format!("kernel {}", kernel.name);
    if cached(&cache, kernel).is_none_or(|image| image.release != release) {
        say!("kernel {}: downloading Linux {release} to {}", kernel.name, cache.display());
        archive.unpack(kernel, &release).with_context(of_kernel)?;
    }
    if headers && headers::of(&cache, &release).is_none() {
        say!("kernel {}: downloading headers to {}", kernel.name, cache.display());
        headers::unpack(&archive, &release).with_context(of_kernel)?;
    }
    cached(&cache, kernel)
        .with_context(|| format!("kernel {}: its packages hold no kernel", kernel.name))
}

/// Removes nothing and downloads nothing: the newest that is there.
fn cached(cache: &Path, kernel: Kernel) -> Option<Image> {
    let entries = fs::read_dir(cache.join("kernels")).ok()?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let releases =
        names.filter_map(|name| kernel.release(&format!("linux-image-{name}")).map(str::to_owned));
    let release = releases.max_by_key(|release| kernel::numbers(release))?;
    let root = cache.join("kernels").join(&release);
    // Debian's layout up to 6.12, and the one after it.
    let modules = ["lib/modules", "usr/lib/modules"]
        .map(|directory| root.join(directory).join(&release))
        .into_iter()
        .find(|directory| directory.is_dir())?;
    let kernel = [root.join(format!("boot/vmlinuz-{release}")), modules.join("vmlinuz")]
        .into_iter()
        .find(|file| file.is_file())?;
    Some(Image { release, kernel, modules })
}

/// Debian's archives, seen by apt with a configuration of ours.
#[derive(Debug)]
pub struct Archive {
    /// What [`cache`] says.
    pub cache: PathBuf,
    configuration: PathBuf,
}

impl Archive {
    /// Fetches the lists of packages of some suites: each an archive and a name.
    pub fn open(cache: &Path, suites: &[(&str, &str)]) -> Result<Self> {
        if !process::in_path("apt-get") {
            bail!("it comes from Debian's archives, and there is no apt-get");
        }
        if !Path::new(KEYS).is_file() {
            bail!("{KEYS} is not there: install the package debian-archive-keyring");
        }
        let apt = cache.join("apt");
        for directory in ["state/lists/partial", "cache/archives/partial", "sources.d"] {
            fs::create_dir_all(apt.join(directory))
                .with_context(|| format!("cannot write to {}", cache.display()))?;
        }
        let mirror = env::var(MIRROR_VARIABLE).unwrap_or_else(|_| MIRROR.to_owned());
        let mirror = mirror.trim_end_matches('/');
        let source = |(archive, suite): &(&str, &str)| {
            format!("deb [arch=amd64 signed-by={KEYS}] {mirror}/{archive} {suite} main\n")
        };
        let sources: String = suites.iter().map(source).collect();
        fs::write(apt.join("sources.list"), sources)?;
        fs::write(apt.join("status"), "")?;
        let at = apt.display();
        // The machine's own configuration holds, too: it may name a proxy.
        let configuration = format!(
            "Dir::State \"{at}/state\";\nDir::State::status \"{at}/status\";\n\
             Dir::Cache \"{at}/cache\";\nDir::Etc::sourcelist \"{at}/sources.list\";\n\
             Dir::Etc::sourceparts \"{at}/sources.d\";\nDir::Etc::preferences \"/dev/null\";\n\
             Dir::Etc::preferencesparts \"{at}/sources.d\";\nAPT::Architecture \"amd64\";\n\
             APT::Architectures {{ \"amd64\"; }};\nAPT::Sandbox::User \"root\";\n\
             Acquire::Languages \"none\";\nAcquire::Retries \"3\";\n"
        );
        let archive = Self { cache: cache.to_owned(), configuration: apt.join("apt.conf") };
        fs::write(&archive.configuration, configuration)?;
        say!("fetching Debian's lists of packages to {at}");
        let error = "--option=APT::Update::Error-Mode=any";
        process::run_tersely(archive.apt("apt-get").args(["update", "--quiet", "--quiet", error]))
            .with_context(|| format!("cannot fetch lists from {mirror} (is the network there?)"))?;
        Ok(archive)
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.configuration).env("LC_ALL", "C");
        command
    }

    /// The newest release of a kernel.
    fn newest(&self, kernel: Kernel) -> Result<String> {
        let packages = process::output(self.apt("apt-cache").args(["pkgnames", "linux-image-"]))?;
        let releases = packages.lines().filter_map(|package| kernel.release(package));
        let newest = releases.max_by_key(|release| kernel::numbers(release));
        newest.map(str::to_owned).with_context(|| {
            let suites = SUITES.map(|(_, suite)| suite).join(", ");
            format!("Debian has no kernel {} any more in {suites}", kernel.name)
        })
    }

    /// Downloads the packages of a kernel and unpacks them.
    fn unpack(&self, kernel: Kernel, release: &str) -> Result<()> {
        let image = format!("linux-image-{release}");
        // From 7.0 on, the image is in packages that it depends on.
        let parts = self.depends(&image)?;
        let parts: Vec<String> = ["linux-binary", "linux-modules", "linux-base"]
            .map(|part| format!("{part}-{release}"))
            .into_iter()
            .filter(|part| parts.contains(part))
            .collect();
        let packages = if parts.is_empty() { vec![image] } else { parts };
        let fresh = self.staging()?;
        self.extract(&packages, &fresh.0)?;
        let place = self.cache.join("kernels").join(release);
        let is_there = || cached(&self.cache, kernel).is_some_and(|image| image.release == release);
        publish(&fresh.0, &place, is_there)
    }

    /// The packages that a package depends on, each a name.
    pub fn depends(&self, package: &str) -> Result<Vec<String>> {
        let described = process::output(self.apt("apt-cache").args(["depends", package]))?;
        let depends = described.lines().filter_map(|line| {
            let (_, name) = line.trim().trim_start_matches('|').split_once("Depends: ")?;
            // In brackets: it is in another suite.
            Some(name.trim_matches(['<', '>']).to_owned())
        });
        Ok(depends.collect())
    }

    /// A directory in which something for the cache is made.
    pub fn staging(&self) -> Result<Temporary> {
        let fresh = Temporary(self.cache.join(directory("download", "packages")));
        fs::create_dir_all(&fresh.0)?;
        Ok(fresh)
    }

    /// Downloads packages and unpacks them to a directory.
    pub fn extract(&self, packages: &[String], to: &Path) -> Result<()> {
        let debs = Temporary(to.join("packages"));
        fs::create_dir_all(&debs.0)?;
        let mut apt = self.apt("apt-get");
        apt.args(["download", "--quiet", "--quiet"]).args(packages).current_dir(&debs.0);
        process::run(&mut apt)?;
        for entry in fs::read_dir(&debs.0)?.flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "deb") {
                let mut dpkg = Command::new("dpkg-deb");
                process::run(dpkg.arg("--extract").arg(entry.path()).arg(to))?;
            }
        }
        Ok(())
    }
}

/// Packages that are unpacked and not installed.
#[derive(Clone, Copy, Debug)]
pub struct Unpacked {
    /// Where, below the cache.
    pub name: &'static str,
    /// The archive and the suite that they come from.
    pub suite: (&'static str, &'static str),
    /// What they are called.
    pub packages: &'static [&'static str],
    /// A file that they hold.
    pub file: &'static str,
    /// It runs by this machine's own libraries: those that the first of the packages
    /// depends on are installed.
    pub needs_libraries: bool,
}

/// Names these libraries, beside what is unpacked.
const LIBRARIES: &str = "libraries";

impl Unpacked {
    /// Whether the cache has them.
    pub fn is_in(&self, cache: &Path) -> bool {
        let root = cache.join(self.name);
        root.join(self.file).is_file() && (!self.needs_libraries || root.join(LIBRARIES).is_file())
    }

    /// Where they are; downloaded if the cache does not have them.
    pub fn ensure(&self, cache: &Path) -> Result<PathBuf> {
        let root = cache.join(self.name);
        if !self.is_in(cache) {
            say!("downloading {} to {}", self.packages.join(", "), root.display());
            let archive = Archive::open(cache, &[self.suite])?;
            let fresh = archive.staging()?;
            let packages: Vec<String> = self.packages.iter().map(|&name| name.to_owned()).collect();
            archive.extract(&packages, &fresh.0)?;
            if self.needs_libraries {
                let mut depends = archive.depends(self.packages[0])?;
                depends.retain(|name| name.starts_with("lib") || name == "zlib1g");
                fs::write(fresh.0.join(LIBRARIES), depends.join("\n"))?;
            }
            publish(&fresh.0, &root, || self.is_in(cache))?;
        }
        if self.needs_libraries {
            let libraries = fs::read_to_string(root.join(LIBRARIES))?;
            apt::ensure(&libraries.lines().collect::<Vec<_>>(), &[], REASON)?;
        }
        Ok(root)
    }
}

/// Puts a directory to its place: it is in the cache as a whole or not at all.
/// `is_there` tells whether somebody else has put it there in the meantime.
pub fn publish(fresh: &Path, place: &Path, is_there: impl FnOnce() -> bool) -> Result<()> {
    if let Some(above) = place.parent() {
        fs::create_dir_all(above)?;
    }
    match fs::rename(fresh, place) {
        Err(error) if !is_there() => bail!("cannot put it to {}: {error}", place.display()),
        _ => Ok(()),
    }
}

/// The name of a directory that [`clean`] removes if this process does not: for
/// what, and for whom.
pub fn directory(what: &str, name: &str) -> String {
    format!("{what}-{}-{name}", std::process::id())
}

/// Removes what runs left that were ended by kill -9: directories named for
/// processes that there are no more.
pub fn clean(cache: &Path) -> Result<()> {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix("run-").or_else(|| name.strip_prefix("download-"));
        let pid = pid.and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            drop(Temporary(entry.path()));
        }
    }
    Ok(())
}

/// A directory that goes when this is dropped.
#[derive(Debug)]
pub struct Temporary(pub PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
