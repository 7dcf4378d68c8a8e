//! Files and lines of the kernel's functions, where debug info is at hand: in a
//! module's own file, or in the `vmlinux` and the modules that a distribution's
//! packages of debug info bring.
//!
//! A place is looked up by its function and the offset in it, which are the same
//! in the file and in memory wherever the kernel has put the function; the build
//! ids of both must be equal. Only files that nobody but root can write are read.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{self, CodeInfo, Input, Sym, Symbolized};
use object::read::elf::ElfFile64;
use object::{
    Endianness, Object as _, ObjectKind, ObjectSection as _, ObjectSymbol as _, ReadCache,
};

use super::symbols::KERNEL;
use crate::report::input::TargetSnapshot;
use crate::symbol::Frame;

/// What may be taken for all lines of a report; the rest stays without.
const PATIENCE: Duration = Duration::from_secs(20);
/// Directories that are looked into for modules, and how deep.
const DIRECTORIES: usize = 10_000;
const DEPTH: usize = 12;
/// Functions that were inlined at one place, at most.
const INLINED: usize = 64;

/// Adds files, lines and inlined functions to the kernel's frames, as far as
/// debug info is at hand.
pub fn add(target: &mut TargetSnapshot) {
    let begun = Instant::now();
    let mut lines = Lines::new(Places::of_system());
    for frames in target.sites.iter_mut().flat_map(|site| &mut site.frames) {
        if begun.elapsed() > PATIENCE {
            tracing::warn!(
                "the kernel's debug info takes too long to read: some lines are missing"
            );
            return;
        }
        if let [frame] = &frames[..]
            && let Some(found) = lines.find(frame)
        {
            *frames = found;
        }
    }
}

/// Where debug info may be.
#[derive(Debug)]
struct Places {
    /// Of the kernel proper.
    images: Vec<PathBuf>,
    /// Below these, of modules.
    modules: Vec<PathBuf>,
    /// /sys
    sysfs: PathBuf,
}

impl Places {
    fn of_system() -> Self {
        let release = crate::preflight::release();
        let debug = Path::new("/usr/lib/debug");
        let modules = [Path::new("/lib/modules"), Path::new("/usr/lib/modules")];
        let modules = modules.map(|one| one.join(&release));
        let separate = modules.clone().map(|one| debug.join(one.strip_prefix("/").unwrap_or(&one)));
        let named = format!("vmlinux-{release}");
        let images = separate.iter().map(|one| one.join("vmlinux")).chain([
            debug.join("boot").join(&named),
            modules[0].join("build/vmlinux"),
            modules[0].join("vmlinux"),
            Path::new("/boot").join(&named),
        ]);
        Self {
            images: images.collect(),
            modules: separate.iter().chain(&modules).cloned().collect(),
            sysfs: "/sys".into(),
        }
    }

    /// Files that may be a module's, by its name.
    fn module_files(&self) -> HashMap<String, Vec<PathBuf>> {
        let mut files: HashMap<String, Vec<PathBuf>> = HashMap::new();
        let mut open: Vec<(PathBuf, usize)> =
            self.modules.iter().map(|one| (one.clone(), 0)).collect();
        let mut seen = HashSet::new();
        while let Some((directory, depth)) = open.pop() {
            let new = fs::canonicalize(&directory).is_ok_and(|real| seen.insert(real));
            if !new || seen.len() > DIRECTORIES {
                continue;
            }
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                // Links lead to the kernel's sources.
                let kind = entry.file_type().ok();
                if kind.is_some_and(|kind| kind.is_dir()) && depth < DEPTH {
                    open.push((entry.path(), depth + 1));
                } else if let Some(name) = entry.file_name().to_str().and_then(module_name) {
                    files.entry(name).or_default().push(entry.path());
                }
            }
        }
        files
    }

    /// The build id of what is running.
    fn running_build_id(&self, module: &str) -> Option<Vec<u8>> {
        let path = match module {
            KERNEL => self.sysfs.join("kernel/notes"),
            _ if module.contains('/') || module.starts_with('.') => return None,
            _ => self.sysfs.join("module").join(module).join("notes/.note.gnu.build-id"),
        };
        build_id(&fs::read(path).ok()?)
    }
}

/// The module's name by that of its file.
fn module_name(file: &str) -> Option<String> {
    let name = file.strip_suffix(".ko").or_else(|| file.strip_suffix(".ko.debug"))?;
    Some(name.replace('-', "_"))
}

/// The build id among ELF notes.
fn build_id(mut notes: &[u8]) -> Option<Vec<u8>> {
    const BUILD_ID: u32 = 3; // NT_GNU_BUILD_ID
    loop {
        let (header, rest) = notes.split_at_checked(12)?;
        let word = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|byte| header[at + byte]));
        let padded = |length: u32| (length as usize).checked_next_multiple_of(4);
        let (name, rest) = rest.split_at_checked(padded(word(0))?)?;
        let (content, rest) = rest.split_at_checked(padded(word(4))?)?;
        if word(8) == BUILD_ID && name == b"GNU\0" {
            return content.get(..word(4) as usize).map(<[u8]>::to_vec);
        }
        notes = rest;
    }
}

/// A file with debug info.
#[derive(Debug)]
struct Image {
    path: PathBuf,
    build_id: String,
    /// Addresses of functions in the file, by name; those of one name of which
    /// there are several are left out.
    functions: HashMap<String, u64>,
}

impl Image {
    /// Opens a file if it has lines, and is what is running.
    fn open(path: &Path, running: &[u8]) -> Option<Self> {
        let file = File::open(path).ok()?;
        let status = file.metadata().ok()?;
        let own = nix::unistd::geteuid().as_raw();
        if !status.is_file() || ![0, own].contains(&status.uid()) || status.mode() & 0o022 != 0 {
            return None;
        }
        let cache = ReadCache::new(file);
        let elf = ElfFile64::<Endianness, _>::parse(&cache).ok()?;
        let same = elf.build_id().ok().flatten().is_some_and(|id| id == running);
        if !same || elf.section_by_name(".debug_line").is_none() {
            return None;
        }
        // The sections of a module's file have no addresses yet: all begin at 0.
        let only = match elf.kind() {
            ObjectKind::Relocatable => Some(elf.section_by_name(".text")?.index()),
            _ => None,
        };
        let mut functions = HashMap::new();
        let mut several = HashSet::new();
        for symbol in elf.symbols() {
            let here = only.is_none() || symbol.section_index() == only;
            let Ok(name) = symbol.name() else { continue };
            if symbol.kind() != object::SymbolKind::Text || !here {
                continue;
            }
            let before = functions.insert(name.to_owned(), symbol.address());
            if before.is_some_and(|address| address != symbol.address()) {
                several.insert(name.to_owned());
            }
        }
        functions.retain(|name, _| !several.contains(name));
        let build_id = running.iter().map(|byte| format!("{byte:02x}")).collect();
        Some(Self { path: path.to_owned(), build_id, functions })
    }
}

/// Debug info that was found.
#[derive(Debug)]
struct Lines {
    places: Places,
    blazesym: symbolize::Symbolizer,
    /// Files of modules; `None`: not looked for yet.
    files: Option<HashMap<String, Vec<PathBuf>>>,
    images: HashMap<String, Option<Image>>,
    /// What was found for an address.
    found: HashMap<u64, Option<Vec<Frame>>>,
}

impl Lines {
    fn new(places: Places) -> Self {
        let blazesym = symbolize::Symbolizer::builder().enable_demangling(false).build();
        let (images, found) = (HashMap::new(), HashMap::new());
        Self { places, blazesym, files: None, images, found }
    }

    /// The frames that stand for one, the innermost first.
    fn find(&mut self, frame: &Frame) -> Option<Vec<Frame>> {
        if let Some(found) = self.found.get(&frame.address) {
            return found.clone();
        }
        let found = self.look(frame);
        self.found.insert(frame.address, found.clone());
        found
    }

    fn look(&mut self, frame: &Frame) -> Option<Vec<Frame>> {
        let (function, offset) = (frame.function.as_deref()?, frame.offset?);
        let image = self.image(frame.module.as_deref()?)?;
        let begin = *image.functions.get(function)?;
        let mut source = Elf::new(&image.path);
        source.debug_syms = true;
        let build_id = image.build_id.clone();
        // The call is the instruction in front of the return address.
        let address = begin.checked_add(offset)?.checked_sub(1)?;
        let input = Input::VirtOffset(address);
        let symbol = match self.blazesym.symbolize_single(&Source::Elf(source), input) {
            Ok(Symbolized::Sym(symbol)) => symbol,
            Ok(Symbolized::Unknown(_)) => return None,
            Err(error) => {
                tracing::debug!(%error, "no lines of the kernel's");
                return None;
            }
        };
        // The compiler's parts of a function (`.isra.0`, `.cold`) have its name.
        let base = |name: &str| name.split('.').next().map(str::to_owned);
        (base(&symbol.name) == base(function)).then(|| frames(frame, &build_id, &symbol))
    }

    /// The file of a module, or of the kernel proper.
    fn image(&mut self, module: &str) -> Option<&Image> {
        if !self.images.contains_key(module) {
            let image = self.open(module);
            self.images.insert(module.to_owned(), image);
        }
        self.images.get(module)?.as_ref()
    }

    fn open(&mut self, module: &str) -> Option<Image> {
        let running = self.places.running_build_id(module)?;
        let first = |paths: &[PathBuf]| paths.iter().find_map(|path| Image::open(path, &running));
        if module == KERNEL {
            return first(&self.places.images);
        }
        let files = self.files.get_or_insert_with(|| self.places.module_files());
        first(files.get(module)?)
    }
}

/// A frame and those inlined in it.
fn frames(frame: &Frame, build_id: &str, symbol: &Sym<'_>) -> Vec<Frame> {
    let located = |code: Option<&CodeInfo<'_>>| Frame {
        file: code.map(|code| code.to_path().to_string_lossy().into_owned()),
        line: code.and_then(|code| code.line).filter(|line| *line > 0),
        build_id: Some(build_id.to_owned()),
        ..frame.clone()
    };
    // blazesym has the outermost first.
    let inlined = symbol.inlined.iter().rev().take(INLINED).map(|inlined| Frame {
        function: Some(inlined.name.to_string()),
        inlined: true,
        offset: None,
        ..located(inlined.code_info.as_ref())
    });
    inlined.chain([located(symbol.code_info.as_deref())]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that build ids are found among notes, and that rotten ones are not.
    #[test]
    fn notes() {
        let note = |name: &[u8], kind: u32, content: &[u8]| {
            let mut bytes = Vec::new();
            for word in [name.len() as u32, content.len() as u32, kind] {
                bytes.extend(word.to_ne_bytes());
            }
            for part in [name, content] {
                bytes.extend(part);
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
            bytes
        };
        let other = note(b"Linux\0", 0x100, b"abc");
        let id = note(b"GNU\0", 3, &[7; 20]);
        assert_eq!(build_id(&[other.clone(), id.clone()].concat()), Some(vec![7; 20]));
        assert_eq!(build_id(&other), None);
        assert_eq!(build_id(&id[..id.len() - 1]), None);
        assert_eq!(build_id(&[0xff; 64]), None);
        let running = Places::of_system().running_build_id(KERNEL).expect("/sys/kernel/notes");
        assert!((8..=32).contains(&running.len()), "{running:?}");
    }

    /// Check names of modules' files.
    #[test]
    fn names_of_modules() {
        assert_eq!(module_name("nf-tables.ko").as_deref(), Some("nf_tables"));
        assert_eq!(module_name("leaky.ko.debug").as_deref(), Some("leaky"));
        assert_eq!(module_name("xfs.ko.xz"), None);
        assert_eq!(module_name("modules.dep"), None);
    }

    /// Check that a module's file is found by its place in the tree, and none that
    /// is something else.
    #[test]
    fn finds_files() {
        let root = tempfile::tempdir().expect("a directory");
        let below = root.path().join("updates/dkms");
        fs::create_dir_all(&below).expect("our own directory");
        fs::write(below.join("a-b.ko"), "no ELF").expect("our own directory");
        std::os::unix::fs::symlink(root.path(), root.path().join("loop")).expect("a link");
        let modules = vec![root.path().to_owned(), root.path().join("nothing")];
        let places = Places { images: Vec::new(), modules, sysfs: root.path().to_owned() };
        let files = places.module_files();
        assert_eq!(files["a_b"], [below.join("a-b.ko")]);
        assert!(Image::open(&files["a_b"][0], &[7; 20]).is_none());
        assert_eq!(places.running_build_id("../module"), None);
    }
}
