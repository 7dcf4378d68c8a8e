//! What the kernel unpacks at boot: the first program, busybox, and the modules
//! that it takes to reach the host's files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::archive::Image;
use crate::process;

/// The first program.
const INIT: &str = include_str!("init.sh");

/// What the first program does not need everywhere: it may be in the kernel.
const MODULES: [&str; 3] = ["virtio_pci", "virtiofs", "overlay"];

/// Writes it to `directory`/initramfs; `command` is a script for sh.
pub fn write(directory: &Path, image: &Image, command: &str) -> Result<PathBuf> {
    let tree = directory.join("tree");
    for name in ["bin", "dev", "proc", "sys", "modules"] {
        fs::create_dir_all(tree.join(name))?;
    }
    let busybox = Path::new("/bin/busybox");
    fs::copy(busybox, tree.join("bin/busybox"))
        .with_context(|| format!("cannot copy {}", busybox.display()))?;
    fs::write(tree.join("init"), INIT)?;
    fs::set_permissions(tree.join("init"), fs::Permissions::from_mode(0o755))?;
    fs::write(tree.join("command"), command)?;
    let modules = quote(&image.modules.to_string_lossy());
    fs::write(tree.join("settings"), format!("MODULES={modules}\n"))?;

    let mut order = Vec::new();
    for module in MODULES {
        add_module(image, module, &tree.join("modules"), &mut order)?;
    }
    let order: String = order.iter().map(|name| format!("{name}\n")).collect();
    fs::write(tree.join("modules/order"), order)?;

    let initramfs = directory.join("initramfs");
    let mut pack = Command::new("sh");
    pack.args(["-c", "find . | cpio --create --quiet --format=newc --owner=0:0 >../initramfs"]);
    process::run(pack.current_dir(&tree))?;
    Ok(initramfs)
}

/// A word as the shell takes it.
pub fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Adds a module behind those that it depends on, unless the kernel has it
/// built in.
fn add_module(image: &Image, name: &str, to: &Path, order: &mut Vec<String>) -> Result<()> {
    let file = format!("{name}.ko");
    if order.contains(&file) {
        return Ok(());
    }
    let Some(found) = find(&image.modules.join("kernel"), name) else {
        let list = image.modules.join("modules.builtin");
        let list =
            fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
        if list.lines().any(|line| module_name(Path::new(line)).as_deref() == Some(name)) {
            return Ok(());
        }
        bail!("Linux {} has no module {name}", image.release);
    };
    let content = match found.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => decompress("xz", &found)?,
        Some("zst") => decompress("zstd", &found)?,
        _ => fs::read(&found)?,
    };
    for needed in depends(&content) {
        add_module(image, &needed, to, order)?;
    }
    fs::write(to.join(&file), content)?;
    order.push(file);
    Ok(())
}

fn decompress(program: &str, file: &Path) -> Result<Vec<u8>> {
    let mut command = Command::new(program);
    command.args(["--decompress", "--stdout"]).arg(file).stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        bail!("{program} cannot decompress {}", file.display());
    }
    Ok(output.stdout)
}

/// The file of a module below a directory.
fn find(directory: &Path, name: &str) -> Option<PathBuf> {
    for entry in fs::read_dir(directory).ok()?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if let Some(found) = find(&path, name) {
                return Some(found);
            }
        } else if module_name(&path).as_deref() == Some(name) {
            return Some(path);
        }
    }
    None
}

/// The name of the module in a file: `9pnet_virtio` of `9pnet-virtio.ko.xz`.
fn module_name(file: &Path) -> Option<String> {
    let (name, rest) = file.file_name()?.to_str()?.split_once(".ko")?;
    matches!(rest, "" | ".xz" | ".zst").then(|| name.replace('-', "_"))
}

/// What a module depends on, by its own information: a list `depends=a,b`
/// between NULs.
fn depends(module: &[u8]) -> Vec<String> {
    let field = module.split(|&byte| byte == 0).find_map(|text| text.strip_prefix(b"depends="));
    let list = String::from_utf8_lossy(field.unwrap_or_default()).replace('-', "_");
    list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that modules are known by their files, and what they depend on.
    #[test]
    fn reads_modules() {
        let name = |file: &str| module_name(Path::new(file));
        assert_eq!(name("kernel/fs/9p/9pnet-virtio.ko.xz").as_deref(), Some("9pnet_virtio"));
        assert_eq!(name("overlay.ko").as_deref(), Some("overlay"));
        assert_eq!(name("overlay.kobold"), None);
        assert_eq!(name("modules.order"), None);
        assert_eq!(depends(b"ELF\0license=GPL\0depends=fuse,virtio-fs\0x"), ["fuse", "virtio_fs"]);
        assert!(depends(b"\0depends=\0").is_empty());
        assert!(depends(b"").is_empty());
    }

    /// Check that a word comes through a shell as it was.
    #[test]
    fn quotes_words() {
        for word in ["", "a b", "it's", "$HOME `id` \"x\" \\"] {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("printf %s {}", quote(word))]);
            assert_eq!(process::output(&mut shell).expect("a shell"), word);
        }
    }
}
