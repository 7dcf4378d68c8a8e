//! Real processes of every kind.

use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::elf::{ElfObject, test_program::TestProgram};

const WAITER: &str = "
    #include <stdio.h>
    #include <unistd.h>
    int main(void) { puts(\"ready\"); fflush(stdout); for (;;) pause(); }
";

/// A child process that is gone when the test is.
struct Running(Child);

impl Running {
    /// Starts a program that says when it is ready.
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{command:?}");
        Self(child)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The mapping of a process whose path ends in `name`.
fn mapping_of(pid: u32, name: &[u8]) -> ExecutableMapping {
    let all = mappings(pid).unwrap();
    let named = |mapping: &&ExecutableMapping| match &mapping.kind {
        MappingKind::File { path, .. } => path.as_os_str().as_bytes().ends_with(name),
        _ => false,
    };
    all.iter().find(named).unwrap_or_else(|| panic!("not mapped: {all:?}")).clone()
}

/// Check that a process is described as it is.
#[test]
fn process_is_inspected() {
    let program = TestProgram::c(WAITER, &[]);
    let process = Running::start(&mut Command::new(program.path()));
    let info = inspect(process.pid()).unwrap();
    assert_eq!(info.pid, process.pid());
    assert_eq!(info.comm, "program");
    assert_eq!(Path::new(&info.exe), program.path().canonicalize().unwrap());
    assert_eq!(info.uid, nix::unistd::getuid().as_raw());
    assert_eq!(info.threads, 1);
    assert!(info.start_time > 0);
    assert_eq!(find_children(process.pid()).unwrap(), Vec::<u32>::new());
    assert!(find_children(std::process::id()).unwrap().contains(&process.pid()));
}

/// Check that a name which is not text is survived and made fit to be shown.
#[test]
fn hostile_names_are_survived() {
    let source = "
        #include <stdio.h>
        #include <sys/prctl.h>
        #include <unistd.h>
        int main(void) {
            prctl(PR_SET_NAME, \") Z\\033[1m\\n\\377Tgid:1\");
            puts(\"ready\"); fflush(stdout); for (;;) pause();
        }";
    let program = TestProgram::c(source, &[]);
    let process = Running::start(&mut Command::new(program.path()));
    let info = inspect(process.pid()).unwrap();
    assert!(info.comm.starts_with(") Z[1m"), "{:?}", info.comm);
    assert!(!info.comm.chars().any(char::is_control), "{:?}", info.comm);
}

/// Check that each process that cannot be traced is refused by name.
#[test]
fn other_processes_are_refused() {
    assert!(matches!(inspect(0), Err(ProcessError::NotFound(0))));
    assert!(matches!(inspect(u32::MAX), Err(ProcessError::NotFound(_))));
    // Above the highest pid_max that there is
    assert!(matches!(inspect(1 << 22), Err(ProcessError::NotFound(_))));
    let own = std::process::id();
    assert!(matches!(inspect(own), Err(ProcessError::IsLeakd(pid)) if pid == own));
    match inspect(2) {
        Err(ProcessError::KernelThread { pid: 2, comm }) => assert_eq!(comm, "kthreadd"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(ProcessHandle::open(2), Err(ProcessError::KernelThread { .. })));
    assert!(matches!(ProcessHandle::open(own), Err(ProcessError::IsLeakd(_))));
    assert!(matches!(ProcessHandle::open(1 << 22), Err(ProcessError::NotFound(_))));

    let (tell, told) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        tell.send(nix::unistd::gettid().as_raw() as u32).unwrap();
        let _ = ended.recv();
    });
    let tid = told.recv().unwrap();
    for result in [inspect(tid).err(), ProcessHandle::open(tid).err()] {
        match result {
            Some(ProcessError::Thread { tid: thread, pid }) => {
                assert_eq!((thread, pid), (tid, own));
            }
            other => panic!("{other:?}"),
        }
    }
    drop(end);
    thread.join().unwrap();
}

/// Check that a 32-bit program is recognized.
#[test]
fn small_program_is_refused() {
    let program = TestProgram::c(WAITER, &["-m32", "-static"]);
    let process = Running::start(&mut Command::new(program.path()));
    match inspect(process.pid()) {
        Err(ProcessError::Not64Bit { pid, comm }) => {
            assert_eq!((pid, comm.as_str()), (process.pid(), "program"));
        }
        other => panic!("{other:?}"),
    }
}

/// Check that a zombie is told from a running process.
#[test]
fn zombie_is_refused() {
    let mut child = Command::new("true").spawn().unwrap();
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    let flags = nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT;
    nix::sys::wait::waitid(nix::sys::wait::Id::Pid(pid), flags).unwrap();
    let result = inspect(child.id());
    let handle = ProcessHandle::open(child.id());
    child.wait().unwrap();
    assert!(matches!(result, Err(ProcessError::Exiting { .. })), "{result:?}");
    assert!(matches!(handle, Err(ProcessError::Exiting { .. })), "{handle:?}");
    assert!(matches!(inspect(child.id()), Err(ProcessError::NotFound(_))));
}

/// Check that every refusal is one line and fits its purpose.
#[test]
fn refusals_are_one_line() {
    let comm = || "name".to_owned();
    for error in [
        ProcessError::NotFound(1),
        ProcessError::Thread { tid: 2, pid: 1 },
        ProcessError::KernelThread { pid: 1, comm: comm() },
        ProcessError::Exiting { pid: 1, comm: comm() },
        ProcessError::Not64Bit { pid: 1, comm: comm() },
        ProcessError::ForeignMachine { pid: 1, comm: comm(), machine: 3 },
        ProcessError::NotElf { pid: 1, comm: comm(), path: comm() },
        ProcessError::IsLeakd(1),
        ProcessError::PermissionDenied { pid: 1 },
        ProcessError::TooLarge { pid: 1, what: "mappings", limit: 1 },
    ] {
        let text = error.to_string();
        assert!(!text.contains('\n') && !text.contains("  ") && text.len() > 20, "{text:?}");
    }
}

/// Check that a handle notices its process's end and is not fooled after it.
#[test]
fn handle_outlives_its_process() {
    let program = TestProgram::c(WAITER, &[]);
    let mut process = Running::start(&mut Command::new(program.path()));
    let handle = ProcessHandle::open(process.pid()).unwrap();
    assert_eq!(handle.info(), &inspect(process.pid()).unwrap());
    assert!(!handle.has_exited().unwrap());
    assert!(!handle.wait(Some(Duration::from_millis(5))).unwrap());
    assert_eq!(&handle.refresh().unwrap(), handle.info());
    process.0.kill().unwrap();
    assert!(handle.wait(None).unwrap());
    assert!(matches!(handle.refresh(), Err(ProcessError::Exiting { .. })));
    process.0.wait().unwrap();
    assert!(handle.has_exited().unwrap());
    assert!(matches!(handle.refresh(), Err(ProcessError::NotFound(_))));
}

/// Check that the executable mappings of a process are found with what they
/// hold, and that the files behind them are opened.
#[test]
fn mappings_are_found_and_opened() {
    let source = "
        #include <stdio.h>
        #include <sys/mman.h>
        #include <unistd.h>
        int main(void) {
            void *code = mmap(0, 8192, PROT_READ | PROT_EXEC,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            printf(\"ready\\n\"); fflush(stdout);
            for (;;) pause();
            return code != 0;
        }";
    let program = TestProgram::c(source, &[]);
    let process = Running::start(&mut Command::new(program.path()));
    let pid = process.pid();
    let all = mappings(pid).unwrap();
    let count = |kind| all.iter().filter(|mapping| mapping.kind == kind).count();
    assert_eq!(count(MappingKind::Vdso), 1, "{all:?}");
    assert_eq!(count(MappingKind::Anonymous), 1, "{all:?}");
    assert!(all.is_sorted_by_key(|mapping| mapping.begin));
    assert!(!runs_under_valgrind(&all));
    let of_program = mapping_of(pid, b"/program");
    let metadata = program.path().metadata().unwrap();
    assert_eq!((of_program.device, of_program.inode), (metadata.dev(), metadata.ino()));
    let file = open_object(pid, &of_program).unwrap();
    let opened = file.metadata().unwrap();
    assert_eq!((opened.dev(), opened.ino()), (metadata.dev(), metadata.ino()));
    let object = ElfObject::read(&file).unwrap();
    let main = object.find_functions(&["main"]).unwrap().remove(0);
    let offset = object.address_to_file_offset(main.address).unwrap();
    let mapped = of_program.offset..of_program.offset + (of_program.end - of_program.begin);
    assert!(mapped.contains(&offset));
    let anonymous = all.iter().find(|mapping| mapping.kind == MappingKind::Anonymous).unwrap();
    let error = open_object(pid, anonymous).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}

/// Check that a program which was deleted, and another put in its place, is
/// still opened itself.
#[test]
fn deleted_program_is_opened() {
    let program = TestProgram::c(WAITER, &[]);
    let process = Running::start(&mut Command::new(program.path()));
    std::fs::remove_file(program.path()).unwrap();
    std::fs::write(program.path(), "another file").unwrap();
    let mapping = mapping_of(process.pid(), b"/program");
    assert!(matches!(mapping.kind, MappingKind::File { deleted: true, .. }), "{mapping:?}");
    let file = open_object(process.pid(), &mapping).unwrap();
    assert_eq!(file.metadata().unwrap().ino(), mapping.inode);
    ElfObject::read(&file).unwrap();
    // The way by the path must not be taken in by the other file.
    assert!(object::open_by_path(process.pid(), &mapping).is_err());
    assert!(inspect(process.pid()).unwrap().exe.ends_with("/program (deleted)"));
}

/// Check that names with a newline, and names that look like one escaped,
/// are opened by their path as well.
#[test]
fn strange_names_are_opened() {
    for name in ["a\nb", "a\\012b", "a\\b", " lead", "x (deleted)"] {
        let program = TestProgram::c(WAITER, &[]);
        let path = program.directory().join(name);
        std::fs::rename(program.path(), &path).unwrap();
        let process = Running::start(&mut Command::new(&path));
        let inode = path.metadata().unwrap().ino();
        let all = mappings(process.pid()).unwrap();
        let mapping = all.iter().find(|mapping| mapping.inode == inode);
        let mapping = mapping.unwrap_or_else(|| panic!("{name:?}: {all:?}"));
        let by_range = open_object(process.pid(), mapping).unwrap();
        assert_eq!(by_range.metadata().unwrap().ino(), inode, "{name:?}");
        let by_path = object::open_by_path(process.pid(), mapping)
            .unwrap_or_else(|error| panic!("{name:?}: {error}"));
        assert_eq!(by_path.metadata().unwrap().ino(), inode, "{name:?}");
    }
}

/// Check that a program in another mount namespace is opened, both ways. This
/// test needs root.
#[test]
fn other_mount_namespace_is_entered() {
    let program = TestProgram::c(WAITER, &["-static"]);
    let place = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs none \"$1\" && cp \"$2\" \"$1/inside\" && exec \"$1/inside\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).arg(place.path()).arg(program.path());
    let process = Running::start(&mut command);
    assert!(!place.path().join("inside").exists());
    let mapping = mapping_of(process.pid(), b"/inside");
    for file in [
        open_object(process.pid(), &mapping).unwrap(),
        object::open_by_path(process.pid(), &mapping).unwrap(),
    ] {
        let object = ElfObject::read(&file).unwrap();
        assert_eq!(object.find_functions(&["main"]).unwrap().len(), 1);
    }
}

/// Check that a FIFO or a device at a mapping's path is not opened and does
/// not block.
#[test]
fn special_files_are_not_opened() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [fifo.as_path(), Path::new("/dev/zero"), directory.path()] {
        let metadata = path.metadata().unwrap();
        let mapping = ExecutableMapping {
            begin: 0x1000,
            end: 0x2000,
            offset: 0,
            device: metadata.dev(),
            inode: metadata.ino(),
            kind: MappingKind::File { path: Arc::from(path), deleted: false },
        };
        let error = object::open_by_path(std::process::id(), &mapping).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{path:?}");
        assert!(open_object(std::process::id(), &mapping).is_err(), "{path:?}");
    }
}

/// Check that each form of a line is read and lines of other forms are an
/// error.
#[test]
fn lines_are_parsed() {
    let text = b"\
00400000-00401000 r--p 00000000 fe:01 12 /bin/x\n\
00401000-00402000 r-xp 00001000 fe:01 12                         /bin/x\n\
00402000-00403000 r-xp 00001000 fe:01 13                         /bin/y z (deleted)\n\
7f0000000000-7f0000001000 rwxp 00000000 00:00 0 \n\
7f0000001000-7f0000002000 rwxp 00000000 00:00 0                  [anon:jit]\n\
7f0000002000-7f0000003000 r-xs 00000000 00:01 1024               /memfd:doublemapper (deleted)\n\
7fff00000000-7fff00002000 r-xp 00000000 00:00 0                  [vdso]\n\
7fffffffe000-7ffffffff000 --xp 00000000 00:00 0                  [uprobes]\n\
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0          [vsyscall]\n";
    let read = mapping::parse(&text[..], 1).unwrap();
    let file =
        |path: &str, deleted| MappingKind::File { path: Arc::from(Path::new(path)), deleted };
    let kinds: Vec<MappingKind> = read.iter().map(|mapping| mapping.kind.clone()).collect();
    assert_eq!(
        kinds,
        [
            file("/bin/x", false),
            file("/bin/y z", true),
            MappingKind::Anonymous,
            MappingKind::Anonymous,
            file("/memfd:doublemapper", true),
            MappingKind::Vdso,
            MappingKind::Vsyscall,
        ]
    );
    assert_eq!((read[0].begin, read[0].end, read[0].offset), (0x40_1000, 0x40_2000, 0x1000));
    assert_eq!((read[0].device, read[0].inode), (libc::makedev(0xfe, 1), 12));
    for bad in [
        &b"x\n"[..],
        b"1-2 r-xp 0 0:0 x\n",
        b"2-1 r-xp 0 0:0 0\n",
        b"1-2 r-x 0 0:0 0\n",
        b"1-2 r-xp 0 0:0 0",
        b"1-ffffffffffffffffff r-xp 0 0:0 0\n",
    ] {
        assert!(mapping::parse(bad, 1).is_err(), "{}", String::from_utf8_lossy(bad));
    }
    assert!(mapping::parse(&vec![b'a'; 1 << 20][..], 1).is_err());
}

/// Check that a process under valgrind is recognized by its preload.
#[test]
fn valgrind_is_recognized() {
    let line = |name: &str| format!("1000-2000 r-xp 00000000 fe:01 12 /usr/libexec/{name}\n");
    let under = |name| runs_under_valgrind(&mapping::parse(line(name).as_bytes(), 1).unwrap());
    assert!(under("valgrind/vgpreload_core-amd64-linux.so"));
    assert!(!under("valgrind/README"));
}

/// Check that a process that maps without end is given up on.
#[test]
fn endless_maps_are_limited() {
    let line = b"1000-2000 r-xp 00000000 00:00 0 \n";
    let endless = std::io::Read::take(Repeat(line, 0), 100 << 20);
    let error = mapping::parse(endless, 1).unwrap_err();
    assert!(matches!(error, ProcessError::TooLarge { .. }), "{error}");
    let line = b"1000-2000 r--p 00000000 00:00 0 \n";
    let endless = std::io::Read::take(Repeat(line, 0), 100 << 20);
    let error = mapping::parse(endless, 1).unwrap_err();
    assert!(matches!(error, ProcessError::TooLarge { .. }), "{error}");
}

/// Bytes over and over again.
struct Repeat(&'static [u8], usize);

impl std::io::Read for Repeat {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        for byte in buffer.iter_mut() {
            *byte = self.0[self.1 % self.0.len()];
            self.1 += 1;
        }
        Ok(buffer.len())
    }
}
