//! Builds the BPF objects that leakd loads, to `$OUT_DIR`: `leakd.bpf.o`, and
//! `leakd-kernel.bpf.o` for the kernel's own memory.

#[path = "../xtask/src/toolchain/locate.rs"]
#[allow(dead_code, reason = "xtask uses the rest")]
mod locate;

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

/// The programs, and the objects that the library includes from OUT_DIR.
const OBJECTS: [(&str, &str); 2] =
    [("leakd-ebpf", "leakd.bpf.o"), ("leakd-kernel", "leakd-kernel.bpf.o")];

fn main() {
    if let Err(error) = build() {
        println!("cargo::error={error}");
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo set no OUT_DIR")?);
    for source in ["leakd-ebpf", "leakd-common", "Cargo.toml", "Cargo.lock", LOCATE] {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    println!("cargo::rerun-if-env-changed={}", locate::SYSROOT_VARIABLE);

    let tools = locate::find().map_err(|missing| {
        format!("{missing}: run `cargo xtask setup` once, it finds or installs the BPF tools")
    })?;
    println!("cargo::rerun-if-changed={}", tools.linker.path.display());
    println!("cargo::rerun-if-changed={}", tools.toolchain.rustc().display());

    // A target directory of its own: the outer cargo holds the lock of the
    // other one while this runs.
    let target = out.join("bpf");
    let status = tools
        .cargo("build")
        .arg("--quiet")
        .arg("--target-dir")
        .arg(&target)
        .current_dir(&root)
        .status()
        .map_err(|error| format!("{}: {error}", tools.toolchain.sysroot.display()))?;
    if !status.success() {
        return Err(format!("the BPF objects could not be built ({status}), see above").into());
    }
    for (program, object) in OBJECTS {
        let built = target.join(locate::TARGET).join("release").join(program);
        fs::copy(&built, out.join(object))
            .map_err(|error| format!("{}: {error}", built.display()))?;
    }
    Ok(())
}

const LOCATE: &str = "xtask/src/toolchain/locate.rs";
