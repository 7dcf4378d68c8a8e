//! The symbolizer on real binaries: what compilers of this machine make.

use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use object::{Object as _, ObjectSegment, ObjectSymbol};
use tempfile::TempDir;

use super::names::Level;
use super::worker::test_hook;
use super::{CodeAddress, Frame, Lookup, Object, ObjectRef, Symbolizer, demangle};

const WAIT: Duration = Duration::from_secs(120);

/// The hook into the worker is one for all tests.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

const C: &str = r#"#include <stdlib.h>
static inline __attribute__((always_inline)) void *innermost(size_t n) {
    return malloc(n); /* line 3 */
}
static inline __attribute__((always_inline)) void *middle(size_t n) {
    return innermost(n + 1); /* line 6 */
}
__attribute__((noinline)) void *outer(size_t n) {
    void *block = middle(n); /* line 9 */
    __asm__ volatile("" : : "r"(block) : "memory");
    return block;
}
__attribute__((noinline, noreturn)) void last(void) {
    abort(); /* line 14 */
}
extern int getchar(void);
int main(int argc, char **argv) { if (argc == 2) getchar(); return argc > 5 ? (last(), 0) : outer(argc) == argv; }
"#;

const CPP: &str = r#"#include <new>
namespace app {
template <typename T> struct Pool {
    __attribute__((always_inline)) T *take() { return static_cast<T *>(::operator new(sizeof(T))); } // 4
    __attribute__((noipa)) T *grow(int n);
};
template <typename T> T *Pool<T>::grow(int n) {
    T *t = take(); // 8
    *t = n;
    return t;
}
}
int main(int argc, char **) { app::Pool<int> pool; return *pool.grow(argc); }
"#;

struct Built {
    _folder: TempDir,
    path: PathBuf,
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn compile(compiler: &str, name: &str, source: &str, options: &[&str]) -> Built {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("program");
    fs::write(folder.path().join(name), source).unwrap();
    run(Command::new(compiler)
        .current_dir(folder.path())
        .args(["-O2", "-g", "-Wl,--build-id=0xc0ffee", "-o", "program", name])
        .args(options));
    Built { _folder: folder, path }
}

fn open(path: &Path) -> ObjectRef {
    Object::new(File::open(path).unwrap(), path).unwrap()
}

/// File offset of a function and its size.
fn function(path: &Path, name: &str) -> (u64, u64) {
    let data = fs::read(path).unwrap();
    let elf = object::File::parse(&*data).unwrap();
    let symbol = elf
        .symbols()
        .find(|symbol| symbol.name().is_ok_and(|mangled| demangle(mangled) == name))
        .unwrap_or_else(|| panic!("{name} not found"));
    let segment = elf
        .segments()
        .find(|one| (one.address()..one.address() + one.size()).contains(&symbol.address()))
        .unwrap();
    (symbol.address() - segment.address() + segment.file_range().0, symbol.size())
}

/// File offset of the return address of the first call in a function.
fn first_call(path: &Path, name: &str) -> u64 {
    let (begin, size) = function(path, name);
    let data = fs::read(path).unwrap();
    let code = &data[begin as usize..(begin + size) as usize];
    let decoder = iced_x86::Decoder::with_ip(64, code, begin, iced_x86::DecoderOptions::NONE);
    decoder
        .into_iter()
        .find(|one| {
            use iced_x86::FlowControl::{Call, IndirectCall};
            matches!(one.flow_control(), Call | IndirectCall)
        })
        .unwrap_or_else(|| panic!("no call in {name}"))
        .next_ip()
}

fn at(object: &ObjectRef, offset: u64) -> CodeAddress {
    CodeAddress::File {
        object: object.clone(),
        offset,
        address: 0x5555_0000_0000 + offset,
        lookup: Lookup::Return,
    }
}

/// Function, file's name, line and whether inlined, of each frame.
fn summary(frames: &[Frame]) -> Vec<(String, String, u32, bool)> {
    frames
        .iter()
        .map(|frame| {
            let file = frame.file.as_deref().unwrap_or_default();
            (
                frame.function.clone().unwrap_or_default(),
                file.rsplit('/').next().unwrap_or_default().to_owned(),
                frame.line.unwrap_or_default(),
                frame.inlined,
            )
        })
        .collect()
}

fn expected(frames: &[(&str, &str, u32, bool)]) -> Vec<(String, String, u32, bool)> {
    let own = |f: &(&str, &str, u32, bool)| (f.0.to_owned(), f.1.to_owned(), f.2, f.3);
    frames.iter().map(own).collect()
}

fn resolve_one(symbolizer: &Symbolizer, address: CodeAddress) -> Vec<Frame> {
    symbolizer.resolve(&[address], WAIT).remove(0)
}

const C_FRAMES: [(&str, &str, u32, bool); 3] = [
    ("innermost", "program.c", 3, true),
    ("middle", "program.c", 6, true),
    ("outer", "program.c", 9, false),
];

/// Check that a C program's inlined calls come out innermost first, each with
/// its own line, and with all else that a frame has.
#[test]
fn c_with_inlining() {
    let _one = one_at_a_time();
    let built = compile("cc", "program.c", C, &[]);
    let object = open(&built.path);
    let symbolizer = Symbolizer::start();
    let offset = first_call(&built.path, "outer");
    let frames = resolve_one(&symbolizer, at(&object, offset));
    assert_eq!(summary(&frames), expected(&C_FRAMES));
    for frame in &frames {
        assert_eq!(frame.address, 0x5555_0000_0000 + offset);
        assert_eq!(frame.module.as_deref(), built.path.to_str());
        assert_eq!(frame.build_id.as_deref(), Some("c0ffee"));
    }
    assert_eq!(frames[0].offset, None);
    assert_eq!(frames[2].offset, Some(offset - function(&built.path, "outer").0));
}

/// Check that a call which never returns is found in its own function, though
/// the return address is behind it.
#[test]
fn last_instruction_of_a_function() {
    let _one = one_at_a_time();
    let built = compile("cc", "program.c", C, &[]);
    let object = open(&built.path);
    let offset = first_call(&built.path, "last");
    let (begin, size) = function(&built.path, "last");
    assert_eq!(offset, begin + size, "the compiler left something behind the call");
    let frames = resolve_one(&Symbolizer::start(), at(&object, offset));
    assert_eq!(summary(&frames), expected(&[("last", "program.c", 14, false)]));
}

/// Check that an address which is no return address is looked up as it is.
#[test]
fn first_instruction_of_a_function() {
    let _one = one_at_a_time();
    let built = compile("cc", "program.c", C, &[]);
    let object = open(&built.path);
    let offset = function(&built.path, "outer").0;
    let address = CodeAddress::File { object, offset, address: 1, lookup: Lookup::Instruction };
    let frames = resolve_one(&Symbolizer::start(), address);
    assert_eq!(frames.last().unwrap().function.as_deref(), Some("outer"));
    assert_eq!(frames.last().unwrap().offset, Some(0));
}

/// Check that C++ names are demangled, those of inlined functions too.
#[test]
fn cpp_with_inlining() {
    let _one = one_at_a_time();
    let built = compile("c++", "program.cpp", CPP, &[]);
    let object = open(&built.path);
    let offset = first_call(&built.path, "app::Pool<int>::grow(int)");
    let frames = resolve_one(&Symbolizer::start(), at(&object, offset));
    assert_eq!(
        summary(&frames),
        expected(&[
            ("app::Pool<int>::take()", "program.cpp", 4, true),
            ("app::Pool<int>::grow(int)", "program.cpp", 8, false),
        ])
    );
}

#[inline(never)]
fn a_rust_function_that_allocates() -> Vec<u8> {
    std::hint::black_box(Vec::with_capacity(std::hint::black_box(100)))
}

/// Check that a Rust program (this one) has names without hashes, and lines.
#[test]
fn rust() {
    let _one = one_at_a_time();
    assert!(a_rust_function_that_allocates().is_empty());
    let path = std::env::current_exe().unwrap();
    let name = "leakd::symbol::tests::a_rust_function_that_allocates";
    let offset = first_call(&path, name);
    let frames = resolve_one(&Symbolizer::start(), at(&open(&path), offset));
    let outer = frames.last().unwrap();
    assert_eq!(outer.function.as_deref(), Some(name));
    assert!(outer.file.as_deref().unwrap().ends_with("leakd/src/symbol/tests.rs"), "{outer:?}");
    assert!(outer.line.is_some());
}

/// Check that a stripped program gives module and offset.
#[test]
fn stripped() {
    let _one = one_at_a_time();
    let built = compile("cc", "program.c", C, &["-s"]);
    let object = open(&built.path);
    let frames = resolve_one(&Symbolizer::start(), at(&object, 0x1100));
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].function, None);
    assert_eq!(frames[0].module.as_deref(), built.path.to_str());
    assert_eq!(frames[0].offset, Some(0x1100));
}

/// Check that split debug information is found by its link, beside the file.
#[test]
fn debug_link() {
    let _one = one_at_a_time();
    let built = compile("cc", "program.c", C, &[]);
    let offset = first_call(&built.path, "outer");
    let debug = built.path.with_extension("debug");
    run(Command::new("objcopy").arg("--only-keep-debug").args([&built.path, &debug]));
    run(Command::new("objcopy").arg("--strip-all").arg(&built.path));
    run(Command::new("objcopy")
        .current_dir(built.path.parent().unwrap())
        .arg("--add-gnu-debuglink=program.debug")
        .arg(&built.path));
    let frames = resolve_one(&Symbolizer::start(), at(&open(&built.path), offset));
    assert_eq!(summary(&frames), expected(&C_FRAMES));
}

/// Check that a process is not needed: it has exited, its program is deleted.
#[test]
fn after_the_process_has_gone() {
    let _one = one_at_a_time();
    let built = compile("cc", "program.c", C, &[]);
    let offset = first_call(&built.path, "outer");
    let mut command = Command::new(&built.path);
    let mut child = command.arg("wait").stdin(Stdio::piped()).spawn().unwrap();
    let exe = File::open(format!("/proc/{}/exe", child.id())).unwrap();
    let object = Object::new(exe, "/srv/program").unwrap();
    drop(child.stdin.take()); // the end of its input, for which it waits
    child.wait().unwrap();
    fs::remove_file(&built.path).unwrap();
    let frames = resolve_one(&Symbolizer::start(), at(&object, offset));
    assert_eq!(summary(&frames), expected(&C_FRAMES));
    assert_eq!(frames[0].module.as_deref(), Some("/srv/program"));
}

/// Check that what was requested ahead is answered from what is kept.
#[test]
fn requested_ahead() {
    let _one = one_at_a_time();
    let built = compile("cc", "program.c", C, &[]);
    let address = at(&open(&built.path), first_call(&built.path, "outer"));
    let symbolizer = Symbolizer::start();
    assert_eq!(symbolizer.request(vec![address.clone(), CodeAddress::Unmapped { address: 7 }]), 1);
    let begun = Instant::now();
    while symbolizer.resolve(std::slice::from_ref(&address), Duration::ZERO)[0].len() != 3 {
        assert!(begun.elapsed() < WAIT, "never answered");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Check that a file which an ordinary user can write gives the same names,
/// from a copy, and that its debug link is not followed.
#[test]
fn file_of_another_user() {
    let _one = one_at_a_time();
    let built = compile("cc", "program.c", C, &["-gz=zlib"]);
    let offset = first_call(&built.path, "outer");
    run(Command::new("mkfifo").arg(built.path.with_extension("fifo")));
    let link = built.path.with_extension("link");
    fs::write(&link, "0123").unwrap();
    run(Command::new("objcopy")
        .arg(format!("--add-section=.gnu_debuglink={}", {
            let mut content =
                built.path.with_extension("fifo").to_str().unwrap().as_bytes().to_vec();
            content.resize(content.len().next_multiple_of(4) + 4, 0);
            fs::write(&link, content).unwrap();
            link.display()
        }))
        .arg(&built.path));
    chown(&built.path, Some(12_345), Some(12_345)).unwrap();
    let symbolizer = Symbolizer::start();
    let object = open(&built.path);
    let frames = resolve_one(&symbolizer, at(&object, offset));
    assert_eq!(summary(&frames), expected(&C_FRAMES));
    // Cut short under the reader, which has only looked at its copy, and asked
    // for an address that is not among the answers yet.
    File::options().write(true).open(&built.path).unwrap().set_len(0).unwrap();
    let frames = resolve_one(&symbolizer, at(&object, offset + 1));
    assert_eq!(frames.last().unwrap().function.as_deref(), Some("outer"));
}

/// Check that rubbish that calls itself ELF, in every length and with every
/// byte of its headers turned over, gives a frame and no harm.
#[test]
fn corrupt_files() {
    let _one = one_at_a_time();
    let built = compile("cc", "program.c", C, &[]);
    let offset = first_call(&built.path, "outer");
    let good = fs::read(&built.path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let symbolizer = Symbolizer::start();
    let section_headers = u64::from_le_bytes(good[40..48].try_into().unwrap()) as usize;
    let step = (good.len() - section_headers) / 150;
    let places = (0..64).chain((section_headers..good.len()).step_by(step.max(1)));
    let mut addresses = Vec::new();
    for (number, place) in places.enumerate() {
        let mut bytes = good.clone();
        bytes[place] ^= 0xff;
        if number % 5 == 0 {
            bytes.truncate(place.max(1));
        }
        let path = folder.path().join(number.to_string());
        fs::write(&path, bytes).unwrap();
        if number % 2 == 0 {
            chown(&path, Some(12_345), None).unwrap();
        }
        addresses.push(at(&open(&path), offset));
    }
    for frames in symbolizer.resolve(&addresses, WAIT) {
        assert!(!frames.is_empty());
        assert!(frames[0].module.is_some());
    }
}

/// Check that an unmapped address and code of a runtime without names give
/// the address and no more.
#[test]
fn no_file() {
    let _one = one_at_a_time();
    let pid = std::process::id();
    let addresses = [
        CodeAddress::Unmapped { address: 0xdead },
        CodeAddress::Jit { pid, address: 0xbeef, lookup: Lookup::Return },
    ];
    let frames = Symbolizer::start().resolve(&addresses, WAIT);
    assert_eq!(frames[0], [Frame { address: 0xdead, ..Frame::default() }]);
    let jit = Frame { address: 0xbeef, module: Some("[jit]".to_owned()), ..Frame::default() };
    assert_eq!(frames[1], [jit]);
}

/// Check that code of a runtime has the name that its map gives.
#[test]
fn just_in_time_code() {
    let _one = one_at_a_time();
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    let map = format!("/tmp/perf-{}.map", child.id());
    fs::write(&map, "7f0000 100 py::work:/srv/app.py\n").unwrap();
    let address = CodeAddress::Jit { pid: child.id(), address: 0x7f_0010, lookup: Lookup::Return };
    let symbolizer = Symbolizer::start();
    let frames = resolve_one(&symbolizer, address.clone());
    fs::remove_file(&map).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(frames[0].function.as_deref(), Some("py::work:/srv/app.py"));
    assert_eq!(frames[0].offset, Some(0x10));
    assert_eq!(resolve_one(&symbolizer, address), frames, "kept when the process has gone");
}

struct Hooked;

impl Hooked {
    fn new(hook: impl Fn(&CodeAddress, Level) + Send + Sync + 'static) -> Self {
        test_hook::set(Some(Box::new(hook)));
        Self
    }
}

impl Drop for Hooked {
    fn drop(&mut self) {
        test_hook::set(None);
    }
}

/// Check that a panic of the reader costs the file its lines and nobody else
/// anything.
#[test]
fn panic_of_the_reader() {
    let _one = one_at_a_time();
    let (bad, good) = (compile("cc", "program.c", C, &[]), compile("cc", "program.c", C, &[]));
    let offset = first_call(&good.path, "outer");
    let (bad, good) = (open(&bad.path), open(&good.path));
    let key = *bad.identity();
    let _hook = Hooked::new(move |address, level| {
        let CodeAddress::File { object, .. } = address else { return };
        assert!(*object.identity() != key || level != Level::Lines, "\x1b[31ma planted panic");
    });
    let symbolizer = Symbolizer::start();
    let frames = symbolizer.resolve(&[at(&bad, offset), at(&good, offset)], WAIT);
    assert_eq!(symbolizer.level(bad.identity()), Level::Symbols);
    assert_eq!(summary(&frames[0]), expected(&[("outer", "", 0, false)]));
    assert_eq!(summary(&frames[1]), expected(&C_FRAMES));
}

/// Check that those who wait are answered when not even reading nothing works.
#[test]
fn panic_at_every_level() {
    let _one = one_at_a_time();
    let built = compile("cc", "program.c", C, &[]);
    let object = open(&built.path);
    let _hook = Hooked::new(|_, _| panic!("a planted panic"));
    let jit = CodeAddress::Jit { pid: 1, address: 0xbeef, lookup: Lookup::Return };
    let symbolizer = Symbolizer::start();
    let begun = Instant::now();
    let frames = symbolizer.resolve(&[at(&object, 0x1100), jit], 1_000 * WAIT);
    assert!(begun.elapsed() < 1_000 * WAIT, "answered only because the deadline passed");
    assert_eq!(symbolizer.level(object.identity()), Level::Nothing);
    assert_eq!((frames[0][0].function.as_deref(), frames[0][0].offset), (None, Some(0x1100)));
    assert_eq!(frames[1][0].module.as_deref(), Some("[jit]"));
}

/// Check that a file which keeps its reader busy is given up, and that others
/// are named by the reader that takes over.
#[test]
fn slow_file() {
    let _one = one_at_a_time();
    let (bad, good) = (compile("cc", "program.c", C, &[]), compile("cc", "program.c", C, &[]));
    let offset = first_call(&good.path, "outer");
    let (bad, good) = (open(&bad.path), open(&good.path));
    let key = *bad.identity();
    static STUCK: AtomicUsize = AtomicUsize::new(0);
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = Mutex::new(released);
    let hook = Hooked::new(move |address, level| {
        let CodeAddress::File { object, .. } = address else { return };
        if *object.identity() == key && level != Level::Nothing {
            STUCK.fetch_add(1, Ordering::Relaxed);
            // Ends when the test does.
            let _ = released.lock().unwrap().recv();
        }
    });
    let symbolizer = Symbolizer::with_patience(Duration::from_millis(300));
    let frames = symbolizer.resolve(&[at(&bad, offset), at(&good, offset)], WAIT);
    assert_eq!(STUCK.load(Ordering::Relaxed), 2, "with lines, then with symbols only");
    drop(release);
    drop(hook);
    assert_eq!(symbolizer.level(bad.identity()), Level::Nothing);
    assert_eq!(frames[0].len(), 1);
    assert_eq!(frames[0][0].function, None);
    assert_eq!(frames[0][0].offset, Some(offset));
    assert_eq!(summary(&frames[1]), expected(&C_FRAMES));
}
