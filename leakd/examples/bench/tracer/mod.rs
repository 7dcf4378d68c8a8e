//! What traces: one file a tracer.

pub mod bpftrace;
pub mod floor;
pub mod heaptrack;
pub mod kernel_memory;
pub mod leakctl;
pub mod leakd;
pub mod leaksanitizer;
pub mod memleak;
mod process;
pub mod valgrind;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;

use anyhow::Result;

/// The name of leakd's full trace, which the others are compared with.
pub const LEAKD: &str = "leakd";
/// The name of the empty programs.
pub const FLOOR: &str = "floor";
/// The name of libbpf-tools' memleak.
pub const MEMLEAK: &str = "memleak";

/// Something that traces a program's allocations.
pub trait Tracer {
    /// Its name in the tables.
    fn name(&self) -> &'static str;

    /// What it is, and how it is run here.
    fn about(&self) -> &'static str;

    /// Its version, or why it cannot be had on this machine.
    fn version(&self) -> Result<String, String>;

    /// How it gets at a program.
    fn way(&self) -> Way;

    /// Traces a running process, for those of [`Way::Attach`]; returns when it
    /// does.
    fn attach(&mut self, pid: u32, _options: &Options) -> Result<Box<dyn Attached>> {
        anyhow::bail!("{} does not attach to processes (pid {pid})", self.name())
    }

    /// What a program is started with, for those of [`Way::Wrap`]. What it needs
    /// goes to `directory`.
    fn wrap(&mut self, _directory: &Path) -> Result<Wrapped> {
        anyhow::bail!("{} is not there from a program's start", self.name())
    }
}

/// How a tracer gets at a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It attaches to a running process.
    Attach,
    /// It is in the process from its start.
    Wrap,
}

/// What tracers are told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Outstanding blocks to make room for, where that can be chosen.
    pub blocks: u64,
    /// Where its report at the end goes.
    pub report: std::path::PathBuf,
    /// Whether anybody reads that: making it may take long.
    pub reports: bool,
    /// leakd: blocks that are younger than this rank no call site.
    pub min_age: std::time::Duration,
}

/// A tracer at work on a running process.
pub trait Attached {
    /// What it takes at this time.
    fn cost(&self) -> Cost;

    /// Ends it, and waits until its probes are gone.
    fn end(self: Box<Self>) -> Result<Told>;
}

/// What a tracer takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// CPU time of its own processes so far, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Resident memory of its own processes.
    pub resident_bytes: Option<u64>,
    /// Memory of its tables in the kernel.
    pub kernel_bytes: Option<u64>,
}

/// What a tracer says at its end.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Events that it lost, if it tells.
    pub lost: Option<u64>,
}

/// A program's start under a tracer; as default under none.
#[derive(Default)]
pub struct Wrapped {
    /// The command in front of the program's own.
    prefix: Vec<OsString>,
    /// Variables for it.
    variables: Vec<(OsString, OsString)>,
    /// A process of the tracer's own, which ends with the program.
    pub beside: Option<Box<dyn Attached>>,
    /// Where its report is to be found when the program has ended.
    pub report: std::path::PathBuf,
}

impl std::fmt::Debug for Wrapped {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { prefix, variables, report, .. } = self;
        formatter
            .debug_struct("Wrapped")
            .field("prefix", prefix)
            .field("variables", variables)
            .field("report", report)
            .finish_non_exhaustive()
    }
}

impl Wrapped {
    /// The command that starts a program.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut words = self.prefix.iter().map(OsString::as_os_str).chain([program.as_ref()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// All tracers, in the order of the tables.
pub fn all() -> Vec<Box<dyn Tracer>> {
    vec![
        Box::new(floor::FloorTracer::default()),
        Box::new(leakd::Leakd::full()),
        Box::new(leakd::Leakd::sampled()),
        Box::new(memleak::Memleak::find()),
        Box::new(bpftrace::Bpftrace),
        Box::new(heaptrack::Heaptrack),
        Box::new(valgrind::Valgrind),
        Box::new(leaksanitizer::LeakSanitizer),
    ]
}

/// The library that a process allocates by: of those that are in the place of the C
/// library's allocator, or the C library.
fn allocator(pid: u32) -> Result<std::path::PathBuf> {
    const OTHERS: [&str; 3] = ["libjemalloc.so", "libtcmalloc", "libmimalloc.so"];
    let mapped = ::leakd::process::mappings(pid)?;
    let find = |prefix: &str| {
        mapped.iter().find_map(|mapping| match &mapping.kind {
            ::leakd::process::MappingKind::File { path, .. } => {
                path.file_name()?.to_str()?.starts_with(prefix).then(|| path.to_path_buf())
            }
            _ => None,
        })
    };
    let found = OTHERS.iter().find_map(|prefix| find(prefix)).or_else(|| find("libc.so"));
    found.ok_or_else(|| anyhow::anyhow!("process {pid} has no libc.so mapped"))
}

/// The first line that a program prints when it is asked for its version.
fn first_line(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|_| format!("{program} is not installed"))?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| !line.trim().is_empty());
    line.map(|line| line.trim().to_owned()).ok_or_else(|| format!("{program} tells no version"))
}
