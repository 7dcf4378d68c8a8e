//! Files and lines of the kernel's functions, where debug info is at hand: in a
//! module's own file, or in the `vmlinux` and the modules that a distribution's
//! packages of debug info bring.
//!
//! A place is looked up by its function and the offset in it, which are the same
//! in the file and in memory wherever the kernel has put the function; the build
//! ids of both must be equal. Only files that nobody but root can write are read.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{self, CodeInfo, Input, Sym, Symbolized};
use nix::sys::memfd::{MFdFlags, memfd_create};
use object::read::elf::ElfFile64;
use object::{Endianness, Object as _, ObjectKind, ObjectSymbol as _, ReadCache};

use super::layout;
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
/// Bytes of a module's file with its debug info.
const MODULE_LIMIT: u64 = 512 << 20;

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
    /// What `path` leads to, where that is a copy.
    _copy: Option<File>,
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
        let build_id = running.iter().map(|byte| format!("{byte:02x}")).collect();
        if elf.kind() != ObjectKind::Relocatable {
            let functions = functions(&elf);
            return Some(Self { path: path.to_owned(), build_id, functions, _copy: None });
        }
        if status.len() > MODULE_LIMIT {
            return None;
        }
        let mut bytes = fs::read(path).ok()?;
        layout::lay_out(&mut bytes)?;
        let elf = ElfFile64::<Endianness, _>::parse(&bytes[..]).ok()?;
        let functions = functions(&elf);
        let mut copy = File::from(memfd_create("leakd-module", MFdFlags::MFD_CLOEXEC).ok()?);
        copy.write_all(&bytes).ok()?;
        let path = format!("/proc/self/fd/{}", copy.as_raw_fd()).into();
        Some(Self { path, build_id, functions, _copy: Some(copy) })
    }
}

/// Addresses of functions, by name, as far as there is one of the name.
fn functions<'data>(elf: &impl object::Object<'data>) -> HashMap<String, u64> {
    let mut functions = HashMap::new();
    let mut several = HashSet::new();
    for symbol in elf.symbols().filter(|one| one.kind() == object::SymbolKind::Text) {
        let Ok(name) = symbol.name() else { continue };
        let before = functions.insert(name.to_owned(), symbol.address());
        if before.is_some_and(|address| address != symbol.address()) {
            several.insert(name.to_owned());
        }
    }
    functions.retain(|name, _| !several.contains(name));
    functions
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

    /// Check that a function of a module has its line, in whichever section it
    /// is, and none where the module that runs is another one.
    #[test]
    fn lines_of_a_module() {
        const SOURCE: &str = "__attribute__((noinline)) int first(int x)\n\
            {\n\treturn x * 3;\n}\n\
            __attribute__((noinline, section(\".init.text\"))) int second(int x)\n\
            {\n\treturn x * 5;\n}\n";
        let root = tempfile::tempdir().expect("a directory");
        let at = |name: &str| root.path().join(name);
        fs::write(at("a.c"), SOURCE).expect("our own directory");
        let run = |program: &str, arguments: &[&str]| {
            let mut command = std::process::Command::new(program);
            command.current_dir(root.path()).args(arguments);
            assert!(command.status().expect("a C compiler").success(), "{program}");
        };
        run("cc", &["-g", "-O1", "-fcf-protection=none", "-c", "a.c"]);
        run("ld", &["-r", "--build-id=sha1", "-o", "a-module.ko", "a.o"]);
        let file = fs::read(at("a-module.ko")).expect("our own directory");
        let elf = ElfFile64::<Endianness, _>::parse(&file[..]).expect("ELF");
        let section = elf.section_by_name(".note.gnu.build-id").expect("a build id");
        let note = object::ObjectSection::data(&section).expect("its content");
        let notes = at("module/a_module/notes");
        fs::create_dir_all(&notes).expect("our own directory");
        fs::write(notes.join(".note.gnu.build-id"), note).expect("our own directory");

        let find = |function: &str| {
            let modules = vec![root.path().to_owned()];
            let places = Places { images: Vec::new(), modules, sysfs: root.path().to_owned() };
            let frame = Frame {
                function: Some(function.to_owned()),
                module: Some("a_module".to_owned()),
                offset: Some(2),
                address: 77,
                ..Frame::default()
            };
            let frames = Lines::new(places).find(&frame)?;
            let last = frames.last()?;
            assert_eq!((last.address, last.offset), (77, Some(2)));
            let file = last.file.as_deref()?.rsplit('/').next()?.to_owned();
            Some((file, last.line?))
        };
        let (first, second) = (find("first"), find("second"));
        assert!(matches!(&first, Some((file, 2..=3)) if file == "a.c"), "{first:?}");
        assert!(matches!(&second, Some((file, 6..=7)) if file == "a.c"), "{second:?}");
        assert_eq!(find("third"), None);
        let other = [&note[..note.len() - 1], &[note[note.len() - 1] ^ 1]].concat();
        fs::write(notes.join(".note.gnu.build-id"), other).expect("our own directory");
        assert_eq!(find("first"), None);
    }
}
