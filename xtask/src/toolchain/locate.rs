//! Where the tools are that build BPF objects from Rust.
//!
//! Shared, by `#[path]`, between `xtask` and the build script of `leakd`, so
//! that both agree; therefore it uses the standard library only.
//!
//! Two things are needed: a rustc with the source of its own `core` (there is
//! no prebuilt one for BPF), and a bpf-linker whose LLVM is at least as new as
//! that rustc's, since it reads the bitcode that rustc writes.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names the installation to use (as `rustc --print sysroot` prints it)
/// instead of the first one that fits.
pub const SYSROOT_VARIABLE: &str = "LEAKD_BPF_SYSROOT";

/// The target triple of the object: BPF, little-endian.
pub const TARGET: &str = "bpfel-unknown-none";

/// Flags for rustc. `debuginfo=2` has to be given here: set in a profile it
/// does not reach `core`, and the kernel then refuses the object with "number
/// of funcs in func_info doesn't match" (aya-rs/aya#1649). `v3` has atomic
/// operations that return a value.
pub const RUSTFLAGS: &str = "-C target-cpu=v3 -C debuginfo=2 -C link-arg=--btf";

/// A rustc and cargo of the same installation, with the source of `core`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// The installation: holds `bin/rustc`, `bin/cargo` and `lib/rustlib`.
    pub sysroot: PathBuf,
    /// rustc's version: major and minor.
    pub version: (u32, u32),
    /// The major version of the LLVM inside rustc.
    pub llvm: u32,
}

/// A bpf-linker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linker {
    /// The program.
    pub path: PathBuf,
    /// The major version of its LLVM; `None` if LLVM was linked statically.
    pub llvm: Option<u32>,
}

/// All that it takes to build the BPF object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tools {
    /// The compiler.
    pub toolchain: Toolchain,
    /// The linker.
    pub linker: Linker,
}

/// What is missing to build the BPF object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No rustc that is new enough has its `core` source beside it.
    Source,
    /// There is no bpf-linker.
    Linker,
    /// There is one, but of an older LLVM than any usable rustc's.
    NewerLinker,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "no rustc with the source of its own `core` found",
            Self::Linker => "no bpf-linker found",
            Self::NewerLinker => "the bpf-linker found is of an older LLVM than rustc",
        })
    }
}

impl Toolchain {
    /// Looks at the installation in `sysroot`; `None` if there is no working
    /// rustc and cargo in it. Says nothing about the source of `core`.
    pub fn at(sysroot: &Path) -> Option<Self> {
        if !sysroot.join("bin/cargo").is_file() {
            return None;
        }
        let mut rustc = Command::new(sysroot.join("bin/rustc"));
        let output = rustc.arg("-vV").env_remove("LD_LIBRARY_PATH").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        Some(Self {
            sysroot: sysroot.to_owned(),
            version: version(field("release: ")?)?,
            llvm: version(field("LLVM version: ")?)?.0,
        })
    }

    /// Whether it can build for a target that has no prebuilt `core`, and is
    /// new enough for this workspace.
    pub fn complete(&self) -> bool {
        self.sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file() && self.recent()
    }

    /// Whether it is new enough for this workspace.
    pub fn recent(&self) -> bool {
        version(env!("CARGO_PKG_RUST_VERSION")).is_some_and(|least| self.version >= least)
    }

    /// The compiler.
    pub fn rustc(&self) -> PathBuf {
        self.sysroot.join("bin/rustc")
    }
}

impl Linker {
    /// Looks at the program at `path`; `None` if there is none.
    fn at(path: PathBuf) -> Option<Self> {
        let content = fs::read(&path).ok()?;
        Some(Self { path, llvm: needed_llvm(&content) })
    }

    /// Whether it understands the bitcode of that compiler.
    pub fn fits(&self, toolchain: &Toolchain) -> bool {
        self.llvm.is_none_or(|llvm| llvm >= toolchain.llvm)
    }
}

impl Tools {
    /// A cargo command that builds for BPF: `cargo SUBCOMMAND` with all
    /// arguments that do not depend on what is built. What the surrounding
    /// cargo has put into the environment is taken out.
    pub fn cargo(&self, subcommand: &str) -> Command {
        let mut command = Command::new(self.toolchain.sysroot.join("bin/cargo"));
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(|name| !passes(name)) {
                command.env_remove(name);
            }
        }
        let directories = self.linker.path.parent().map(Path::to_owned).into_iter();
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(directories.chain(env::split_paths(&path)));
        command
            .env("PATH", path.unwrap_or_default())
            .env("RUSTC", self.toolchain.rustc())
            .env("RUSTC_BOOTSTRAP", "1") // `-Z build-std` with a stable compiler
            .env("RUSTFLAGS", RUSTFLAGS)
            .args([subcommand, "--package", "leakd-ebpf", "--release"])
            .args(["-Z", "build-std=core", "--target", TARGET]);
        command
    }
}

/// Finds a compiler and a linker that fit each other.
pub fn find() -> Result<Tools, Missing> {
    let linkers: Vec<_> = linkers().collect();
    let mut missing = Missing::Source;
    for toolchain in toolchains().filter(Toolchain::complete) {
        match linkers.iter().find(|linker| linker.fits(&toolchain)) {
            Some(linker) => return Ok(Tools { toolchain, linker: linker.clone() }),
            None if linkers.is_empty() => missing = Missing::Linker,
            None => missing = Missing::NewerLinker,
        }
    }
    Err(missing)
}

/// Every installation of Rust that may be used, the preferred one first: the
/// one that runs this build, the system's, nightlies of rustup.
pub fn toolchains() -> impl Iterator<Item = Toolchain> {
    let mut sysroots = Vec::new();
    if let Some(chosen) = env::var_os(SYSROOT_VARIABLE).filter(|value| !value.is_empty()) {
        sysroots.push(PathBuf::from(chosen));
    } else {
        sysroots.extend(active_sysroot());
        sysroots.push("/usr".into());
        sysroots.extend(rustup_nightlies());
    }
    sysroots.into_iter().filter_map(|sysroot| Toolchain::at(&sysroot))
}

/// The installation whose cargo runs this program.
pub fn active_sysroot() -> Option<PathBuf> {
    let cargo = PathBuf::from(env::var_os("CARGO")?);
    Some(cargo.parent()?.parent()?.to_owned())
}

/// Where xtask puts the tools that it builds: `$XDG_DATA_HOME/leakd/tools`.
pub fn tools_directory() -> Option<PathBuf> {
    let absolute =
        |name| env::var_os(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
    let data =
        absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")))?;
    Some(data.join("leakd/tools"))
}

/// Our own linker first, then those in PATH.
pub fn linkers() -> impl Iterator<Item = Linker> {
    let path = env::var_os("PATH").unwrap_or_default();
    let own = tools_directory().map(|directory| directory.join("bin"));
    let directories: Vec<_> = own.into_iter().chain(env::split_paths(&path)).collect();
    directories.into_iter().filter_map(|directory| Linker::at(directory.join("bpf-linker")))
}

fn rustup_nightlies() -> Vec<PathBuf> {
    let home = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".rustup")));
    let Some(entries) = home.and_then(|home| fs::read_dir(home.join("toolchains")).ok()) else {
        return Vec::new();
    };
    let is_nightly = |name: OsString| name.to_string_lossy().starts_with("nightly");
    let mut found: Vec<_> = entries
        .flatten()
        .filter(|entry| is_nightly(entry.file_name()))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// Major and minor of `1.95.0-nightly`.
pub fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(['.', '-', '+', '~']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The LLVM that a program is linked with: the number in the name of the
/// library, `libLLVM.so.22.1` (Debian) or `libLLVM-21.so`.
fn needed_llvm(program: &[u8]) -> Option<u32> {
    const NAME: &[u8] = b"libLLVM";
    let mut rest = program;
    while let Some(start) = rest.iter().position(|&byte| byte == NAME[0]) {
        rest = &rest[start..];
        if let Some(behind) = rest.strip_prefix(NAME) {
            let behind = behind.strip_prefix(b".so.").or_else(|| behind.strip_prefix(b"-"));
            let digits = behind?.iter().take(4).take_while(|byte| byte.is_ascii_digit());
            return String::from_utf8(digits.copied().collect()).ok()?.parse().ok();
        }
        rest = &rest[1..];
    }
    None
}

/// Whether a variable may reach the cargo that builds for BPF. A build script,
/// clippy and rust-analyzer set many that are meant for the outer build.
fn passes(name: &str) -> bool {
    const KEPT: [&str; 8] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_RESOLVER_",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
    ];
    const DROPPED: [&str; 11] = [
        "CLIPPY_",
        "RUSTC",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "MAKEFLAGS",
        "MFLAGS",
        "LD_LIBRARY_PATH", // holds the outer rustc's own libraries
        "TARGET",
        "HOST",
        "OUT_DIR",
    ];
    if name.starts_with("CARGO") {
        return KEPT.iter().any(|kept| name.starts_with(kept));
    }
    !DROPPED.iter().any(|dropped| match dropped.strip_suffix('_') {
        Some(_) => name.starts_with(dropped),
        None => name == *dropped || (*dropped == "RUSTC" && name.starts_with("RUSTC_")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that versions are read from what rustc and Debian call them.
    #[test]
    fn reads_versions() {
        assert_eq!(version("1.97.0-nightly"), Some((1, 97)));
        assert_eq!(version("22.1.8"), Some((22, 1)));
        assert_eq!(version("1.96.0+dfsg1-1~deb12u2"), Some((1, 96)));
        assert_eq!(version("1.95"), Some((1, 95)));
        assert_eq!(version("x"), None);
    }

    /// Check that the LLVM of a linker is read from its library's name.
    #[test]
    fn reads_the_needed_llvm() {
        assert_eq!(needed_llvm(b"lib\0llibLLVM.so.22.1\0x"), Some(22));
        assert_eq!(needed_llvm(b"\0libLLVM-21.so.1\0"), Some(21));
        assert_eq!(needed_llvm(b"libc.so.6\0lib"), None);
        assert_eq!(needed_llvm(b"libLLVM"), None);
        let static_linker = Linker { path: PathBuf::new(), llvm: None };
        let toolchain = Toolchain { sysroot: PathBuf::new(), version: (1, 95), llvm: 22 };
        assert!(static_linker.fits(&toolchain));
        assert!(!Linker { llvm: Some(21), ..static_linker }.fits(&toolchain));
    }

    /// Check that the inner cargo does not see what the outer one set, and
    /// still sees how to reach the registry.
    #[test]
    fn keeps_the_outer_build_out() {
        for name in ["CARGO_ENCODED_RUSTFLAGS", "CARGO", "CARGO_TARGET_DIR", "RUSTC_WRAPPER"] {
            assert!(!passes(name), "{name}");
        }
        for name in ["RUSTC_WORKSPACE_WRAPPER", "CLIPPY_ARGS", "LD_LIBRARY_PATH", "TARGET"] {
            assert!(!passes(name), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO_HTTP_PROXY", "PATH", "HTTPS_PROXY", "RUSTUP_HOME"] {
            assert!(passes(name), "{name}");
        }
    }
}
