//! cc1plus, gcc's C++ compiler proper, on one file.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use tempfile::TempDir;

use super::{Running, Sample, Workload};
use crate::child::{Ending, cpu_seconds, in_path, until};
use crate::tracer::Wrapped;

/// What is compiled.
const SOURCE: &str = "#include <string>\n#include <vector>\n\
    int main() { std::vector<std::string> all; all.push_back(\"a\"); return all.size(); }\n";

/// A compilation by cc1plus. The compiler reads its standard input: while it waits
/// there, it can be attached to.
#[derive(Debug, Default)]
pub struct Compiler {
    /// The source, with all that it includes.
    preprocessed: Option<Vec<u8>>,
}

fn compiler() -> Option<PathBuf> {
    let output = Command::new("c++").arg("-print-prog-name=cc1plus").output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    path.is_absolute().then_some(path)
}

fn preprocess() -> Result<Vec<u8>> {
    let directory = TempDir::with_prefix("compiler-")?;
    let source = directory.path().join("source.cc");
    fs::write(&source, SOURCE)?;
    let output = Command::new("c++").arg("-E").arg(&source).stderr(Stdio::null()).output()?;
    ensure!(output.status.success(), "c++ -E failed ({})", output.status);
    Ok(output.stdout)
}

impl Workload for Compiler {
    fn name(&self) -> &'static str {
        "cc1plus, one file"
    }

    fn unit(&self) -> &'static str {
        "compilations"
    }

    fn missing(&self) -> Option<String> {
        (in_path("c++").is_none() || compiler().is_none())
            .then(|| "c++ or its cc1plus is not installed".to_owned())
    }

    fn once(&self) -> bool {
        true
    }

    fn start(&mut self, wrapped: &Wrapped) -> Result<Box<dyn Running>> {
        let source = match self.preprocessed.take() {
            Some(source) => source,
            None => preprocess()?,
        };
        self.preprocessed = Some(source.clone());
        let mut command = wrapped.command(compiler().context("there is no cc1plus")?);
        command.args(["-quiet", "-fpreprocessed", "-", "-o", "/dev/null"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = Ending::start(&mut command)?;
        let stdin = child.0.stdin.take().context("a pipe")?;
        let compiling = Compiling { child, stdin: Some(stdin), source };
        compiling.wait_until_it_reads()?;
        Ok(Box::new(compiling))
    }
}

/// CPU time of all children that have ended, in seconds.
fn ended_children() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

#[derive(Debug)]
struct Compiling {
    child: Ending,
    stdin: Option<ChildStdin>,
    source: Vec<u8>,
}

impl Compiling {
    /// Until it has mapped its libraries and waits for its source.
    fn wait_until_it_reads(&self) -> Result<()> {
        let call = format!("/proc/{}/syscall", self.child.0.id());
        until("cc1plus reads", Duration::from_secs(60), || {
            // The number of the call and its arguments: of descriptor 0.
            let call = fs::read_to_string(&call).unwrap_or_default();
            Ok(call.split(' ').nth(1) == Some("0x0"))
        })
    }
}

impl Running for Compiling {
    fn pid(&self) -> u32 {
        self.child.0.id()
    }

    fn measure(&mut self, _case: usize, _duration: Duration) -> Result<Sample> {
        let mut stdin = self.stdin.take().context("it compiles but once")?;
        // Its start is not part of it; ours has no other children that end now.
        let before = ended_children()? + cpu_seconds(self.pid()).unwrap_or(0.0);
        stdin.write_all(&self.source)?;
        drop(stdin);
        let status = self.child.0.wait()?;
        let seconds = (ended_children()? - before).max(0.001);
        ensure!(status.success(), "cc1plus failed ({status})");
        Ok(Sample { throughput: 1.0 / seconds, p50: None, p99: None })
    }
}
