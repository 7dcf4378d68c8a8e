//! Reading real, damaged and hostile files.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use proptest::prelude::*;

use super::test_program::TestProgram;
use super::*;

const PROGRAM: &str = "
    #include <stdlib.h>
    #include <string.h>
    static __attribute__((noinline, used)) void *hidden(size_t size) { return malloc(size); }
    void xfree(void *block) { free(block); }
    static void *plain(void) { return 0; }
    static void *(*choose(void))(void) { return plain; }
    void *chosen(void) __attribute__((ifunc(\"choose\")));
    int main(void) { xfree(hidden(1)); return chosen() != 0; }
";

fn read(path: impl AsRef<Path>) -> Result<ElfObject, ElfError> {
    ElfObject::read(&File::open(path).unwrap())
}

/// A file with these bytes.
fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn names(functions: &[FunctionSymbol]) -> Vec<&str> {
    let mut names: Vec<&str> = functions.iter().map(|symbol| symbol.name.as_str()).collect();
    names.sort_unstable();
    names
}

/// Does everything with a file that can be done with one.
fn exercise(file: &File) -> Result<(), ElfError> {
    let object = ElfObject::read(file)?;
    let wanted = ["malloc", "free", "xfree", "hidden", "chosen"];
    let _ = object.find_imports(&wanted);
    let _ = object.find_call_slots(&wanted);
    let _ = object.code_at(object.entry(), 1 << 20);
    for segment in object.segments() {
        let _ = object.address_to_file_offset(segment.address.wrapping_add(segment.file_size));
        let _ = object.code_at(segment.address, usize::MAX);
    }
    for symbol in object.find_functions(&wanted)? {
        let _ = object.code_at(symbol.address, 64);
    }
    Ok(())
}

/// Check that a program's headers, symbols and code are read as the tool
/// chain wrote them.
#[test]
fn program_is_read() {
    let program = TestProgram::c(PROGRAM, &["-O1", "-Wl,--build-id=0x0123456789abcdef"]);
    let object = read(program.path()).unwrap();
    assert_eq!(object.machine(), Machine::OWN);
    assert_eq!(object.file_type(), FileType::Shared, "position-independent by default");
    let build_id = object.build_id().unwrap();
    assert_eq!(build_id.to_string(), "0123456789abcdef");
    assert_eq!(BuildId::of(&File::open(program.path()).unwrap()), Some(build_id));
    assert!(object.has_interpreter());
    assert_eq!(object.soname(), None);
    let entry = object.address_to_file_offset(object.entry()).unwrap();
    assert_eq!(object.file_offset_to_address(entry), Some(object.entry()));
    assert_eq!(object.code_at(object.entry(), 16).unwrap().len(), 16);
    assert!(object.code_at(u64::MAX, 16).is_err());
    assert_eq!(object.address_to_file_offset(u64::MAX), None);

    // "free" lies within "xfree" in the table of names
    let wanted = ["hidden", "xfree", "chosen", "free", "malloc", "nothing"];
    let found = object.find_functions(&wanted).unwrap();
    assert_eq!(names(&found), ["chosen", "hidden", "xfree"]);
    for symbol in &found {
        assert_eq!(symbol.indirect, symbol.name == "chosen", "{symbol:?}");
        let local = symbol.name == "hidden";
        let binding = if local { Binding::Local } else { Binding::Global };
        assert_eq!(symbol.binding, binding, "{symbol:?}");
        assert!(symbol.size > 0, "{symbol:?}");
    }
    assert_eq!(object.find_imports(&wanted).unwrap(), ["free", "malloc"]);
    let slots = object.find_call_slots(&wanted).unwrap();
    let mut called: Vec<&str> = slots.values().map(|index| wanted[*index]).collect();
    called.sort_unstable();
    assert_eq!(called, ["free", "malloc"]);
}

/// Check that versions of symbols do not hide their names and that a symbol
/// in both tables is found once.
#[test]
fn shared_library_is_read() {
    let object = read("/lib/x86_64-linux-gnu/libc.so.6").unwrap();
    assert_eq!(object.soname(), Some("libc.so.6"));
    let found = object.find_functions(&["malloc", "free", "calloc"]).unwrap();
    assert_eq!(names(&found), ["calloc", "free", "malloc"]);

    let script = "V1 { global: shared_function; };";
    let directory = tempfile::tempdir().unwrap();
    let version = directory.path().join("version");
    std::fs::write(&version, script).unwrap();
    let flag = format!("-Wl,--version-script={}", version.display());
    let source = "__asm__(\".symver original, shared_function@V1\");
                  void original(void) {}";
    let library = TestProgram::c(source, &["-shared", "-fPIC", &flag]);
    let found = read(library.path()).unwrap().find_functions(&["shared_function"]).unwrap();
    assert_eq!(names(&found), ["shared_function"]);
}

/// Check that static programs have their functions found as long as they have
/// symbols, and none once they are stripped.
#[test]
fn static_programs_are_read() {
    let wanted = ["malloc", "free", "hidden"];
    let program = TestProgram::c(PROGRAM, &["-static"]);
    let object = read(program.path()).unwrap();
    assert_eq!(object.file_type(), FileType::Executable);
    assert!(!object.has_interpreter());
    assert_eq!(names(&object.find_functions(&wanted).unwrap()), ["free", "hidden", "malloc"]);
    let program = TestProgram::c(PROGRAM, &["-static", "-s"]);
    assert!(read(program.path()).unwrap().find_functions(&wanted).unwrap().is_empty());
}

/// Check that what is no 64-bit ELF file is refused with the right reason,
/// and that a FIFO does not block.
#[test]
fn other_files_are_refused() {
    let program = TestProgram::c("int main(void) { return 0; }", &["-m32"]);
    assert!(matches!(read(program.path()), Err(ElfError::Not64Bit)));
    assert!(matches!(ElfObject::read(&file(b"")), Err(ElfError::NotElf)));
    assert!(matches!(ElfObject::read(&file(b"#!/bin/sh\n")), Err(ElfError::NotElf)));
    assert!(matches!(ElfObject::read(&file(b"\x7fELF")), Err(ElfError::Damaged(_))));
    assert!(matches!(read("/tmp"), Err(ElfError::NotRegular)));
    assert!(matches!(read("/dev/zero"), Err(ElfError::NotRegular)));
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let open = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(fifo).unwrap();
    assert!(matches!(ElfObject::read(&open), Err(ElfError::NotRegular)));
    let mut header = std::fs::read("/proc/self/exe").unwrap();
    header[5] = 2;
    assert!(matches!(ElfObject::read(&file(&header)), Err(ElfError::BigEndian)));
    header[5] = 1;
    header[18] = 40;
    assert!(matches!(ElfObject::read(&file(&header)), Err(ElfError::Machine(40))));
}

/// Check that a file which was cut short anywhere gives an error or what is
/// left of it, and that its symbols are never made up.
#[test]
fn truncated_files_are_survived() {
    let program = TestProgram::c(PROGRAM, &[]);
    let whole = std::fs::read(program.path()).unwrap();
    let mut refused = 0;
    for length in (0..256).chain((256..whole.len()).step_by(97)) {
        refused += u32::from(exercise(&file(&whole[..length])).is_err());
    }
    // The section headers are at the end.
    assert!(refused > 256, "{refused}");
    exercise(&file(&whole)).unwrap();
}

/// A file that consists of a header, a string table and a symbol table.
fn with_strings(strings: &[u8], symbols: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    bytes[16] = 3; // ET_DYN
    bytes[18] = 62; // EM_X86_64
    bytes.extend(strings);
    bytes.extend(symbols);
    let sections = bytes.len() as u64;
    let mut section = |kind: u32, offset: u64, size: u64, link: u32| {
        let mut header = [0; 64];
        header[4..8].copy_from_slice(&kind.to_le_bytes());
        header[24..32].copy_from_slice(&offset.to_le_bytes());
        header[32..40].copy_from_slice(&size.to_le_bytes());
        header[40..44].copy_from_slice(&link.to_le_bytes());
        bytes.extend(header);
    };
    section(0, 0, 0, 0);
    section(3, 64, strings.len() as u64, 0); // SHT_STRTAB
    section(2, 64 + strings.len() as u64, symbols.len() as u64, 1); // SHT_SYMTAB
    bytes[40..48].copy_from_slice(&sections.to_le_bytes());
    bytes[58] = 64; // e_shentsize
    bytes[60] = 3; // e_shnum
    bytes
}

fn symbol(name: u32) -> [u8; 24] {
    let mut symbol = [0; 24];
    symbol[..4].copy_from_slice(&name.to_le_bytes());
    symbol[4] = 0x12; // global function
    symbol[6] = 1;
    symbol
}

/// Check that tables made to be expensive are refused instead of worked off.
#[test]
fn hostile_tables_are_limited() {
    let plain = with_strings(b"\0malloc\0", &symbol(1));
    let object = ElfObject::read(&file(&plain)).unwrap();
    assert_eq!(names(&object.find_functions(&["malloc"]).unwrap()), ["malloc"]);

    let strings = b"malloc\0".repeat(100_000);
    let object = ElfObject::read(&file(&with_strings(&strings, &symbol(0)))).unwrap();
    assert!(matches!(object.find_functions(&["malloc"]), Err(ElfError::TooLarge { .. })));

    let symbols = symbol(1).repeat(100_000);
    let object = ElfObject::read(&file(&with_strings(b"\0malloc\0", &symbols))).unwrap();
    assert!(matches!(object.find_functions(&["malloc"]), Err(ElfError::TooLarge { .. })));

    // A string table of 2^60 bytes, and one that overflows
    for size in [1_u64 << 60, u64::MAX] {
        let mut huge = plain.clone();
        let at = huge.len() - 128 + 32;
        huge[at..at + 8].copy_from_slice(&size.to_le_bytes());
        let object = ElfObject::read(&file(&huge)).unwrap();
        assert!(object.find_functions(&["malloc"]).is_err());
    }
    let mut many = plain;
    many[60..62].copy_from_slice(&u16::MAX.to_le_bytes());
    assert!(ElfObject::read(&file(&many)).is_err());
}

/// Check that names which cross the border between two reads are found.
#[test]
fn names_across_chunks_are_found() {
    let border = super::source::CHUNK as usize;
    for start in border - 8..=border + 1 {
        let mut strings = vec![0; start];
        strings.extend(b"malloc\0");
        let bytes = with_strings(&strings, &symbol(start as u32));
        let object = ElfObject::read(&file(&bytes)).unwrap();
        assert_eq!(object.find_functions(&["malloc"]).unwrap().len(), 1, "{start}");
    }
}

/// A program to damage; made once, because compiling takes longer than all
/// the rest.
fn to_damage() -> &'static [u8] {
    static BYTES: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    BYTES.get_or_init(|| std::fs::read(TestProgram::c(PROGRAM, &[]).path()).unwrap())
}

proptest! {
    /// Check that no change to a file's bytes makes reading it panic.
    #[test]
    fn mutated_files_are_survived(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        header in proptest::collection::vec((0..64_usize, any::<u8>()), 0..3),
    ) {
        let mut bytes = to_damage().to_vec();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        for (at, value) in header {
            bytes[at] = value;
        }
        let _ = exercise(&file(&bytes));
    }

    /// Check the same for the section and program headers, where it matters.
    #[test]
    fn mutated_headers_are_survived(
        segments in proptest::collection::vec((0..13 * 56_usize, any::<u8>()), 0..10),
        sections in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..10),
    ) {
        let mut bytes = to_damage().to_vec();
        let table = u64::from_le_bytes(bytes[40..48].try_into().unwrap()) as usize;
        for (at, value) in segments {
            bytes[64 + at] = value;
        }
        for (at, value) in sections {
            let at = table + at.index(bytes.len() - table);
            bytes[at] = value;
        }
        let _ = exercise(&file(&bytes));
    }

    /// Check that bytes behind a valid identification are survived.
    #[test]
    fn random_files_are_survived(tail in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.extend(tail);
        if bytes.len() > 20 {
            bytes[18] = 62;
            bytes[19] = 0;
        }
        let _ = exercise(&file(&bytes));
    }
}
