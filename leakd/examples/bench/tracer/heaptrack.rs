//! heaptrack, set up as its script of that name does it, less the compression: a
//! library in the program writes to a pipe, which a process of its own reads.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::process::{PATIENCE, Tool};
use super::{Attached, Cost, Told, Tracer, Way, Wrapped, first_line};
use crate::child::in_path;

/// heaptrack.
#[derive(Clone, Copy, Debug)]
pub struct Heaptrack;

/// Beside its script, as Debian and its own build place them.
fn parts() -> Option<[PathBuf; 2]> {
    let script = in_path("heaptrack")?;
    let library = script.parent()?.parent()?.join("lib/heaptrack");
    let parts = ["libheaptrack_preload.so", "libexec/heaptrack_interpret"];
    let parts = parts.map(|part| library.join(part));
    parts.iter().all(|part| part.is_file()).then_some(parts)
}

impl Tracer for Heaptrack {
    fn name(&self) -> &'static str {
        "heaptrack"
    }

    fn about(&self) -> &'static str {
        "heaptrack, preloaded from the start, with its interpreter"
    }

    fn version(&self) -> Result<String, String> {
        parts().ok_or("heaptrack is not installed")?;
        first_line(Command::new("heaptrack").arg("--version").stdin(Stdio::null()))
    }

    fn way(&self) -> Way {
        Way::Wrap
    }

    fn wrap(&mut self, directory: &Path) -> Result<Wrapped> {
        let [library, interpreter] = parts().context("heaptrack is not installed")?;
        let pipe = directory.join("heaptrack.pipe");
        mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR)?;
        let report = directory.join("heaptrack.txt");
        // The shell waits in open(2) until the program opens the other end.
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$1\" <\"$2\"", "sh"]).arg(interpreter).arg(&pipe);
        command.stdin(Stdio::null()).stdout(File::create(&report)?).stderr(Stdio::null());
        let beside = Interpreter(Tool::start("heaptrack_interpret", &mut command)?);
        let variables = vec![
            ("LD_PRELOAD".into(), library.into_os_string()),
            ("DUMP_HEAPTRACK_OUTPUT".into(), pipe.into_os_string()),
        ];
        Ok(Wrapped { variables, report, beside: Some(Box::new(beside)), ..Wrapped::default() })
    }
}

/// Its reader, which ends when the program has.
#[derive(Debug)]
struct Interpreter(Tool);

impl Attached for Interpreter {
    fn cost(&self) -> Cost {
        // It sets no probes: what its cgroup is charged for are page tables.
        Cost { kernel_bytes: None, ..self.0.cost() }
    }

    fn end(mut self: Box<Self>) -> Result<Told> {
        self.0.child.wait(PATIENCE).context("heaptrack_interpret")?;
        let status = self.0.child.0.wait()?;
        ensure!(status.success(), "heaptrack_interpret failed ({status})");
        Ok(Told::default())
    }
}
