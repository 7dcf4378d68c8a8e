//! Finding blocks that nothing leads to any more: `leakctl scan`, on a process that
//! works on, beside the tools that look when it ends.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use leakd::report::scan::ScanReport;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::child::Ending;
use crate::compiled::Compiled;
use crate::model::Scan;
use crate::overhead::progress;
use crate::reports;
use crate::session::Session;
use crate::statistics::median;
use crate::tracer::{LEAKD, Tracer, leakctl};
use crate::workload::commanded::Commanded;

const SOURCE: &str = include_str!("graph.c");
/// What the process has.
#[derive(Clone, Copy, Debug)]
struct Heap {
    blocks: u64,
    block_bytes: u64,
}

const HEAPS: [Heap; 3] = [
    Heap { blocks: 100_000, block_bytes: 64 },
    Heap { blocks: 1_000_000, block_bytes: 64 },
    Heap { blocks: 1_000_000, block_bytes: 1024 },
];
/// Of which so many are lost besides.
const LOST: u64 = 1000;
/// Where they are allocated, in the source.
const PLACE: &str = "lost_here";
/// How long leakd may record: until the blocks are made, when it is told to look.
const RECORDED: Duration = Duration::from_secs(600);
/// What the process does by itself before, for comparison.
const BEFORE: Duration = Duration::from_millis(500);
/// A measurement of what the process does meanwhile.
const STEP: Duration = Duration::from_millis(20);
/// Tools that tell what is lost from what is held.
const TOOLS: [&str; 3] = [LEAKD, "valgrind", "lsan"];

/// Measures all that can tell what is lost.
pub fn run(tracers: &mut [Box<dyn Tracer>]) -> Result<Vec<Scan>> {
    let program = Compiled::of(SOURCE)?;
    let mut all = Vec::new();
    for heap in HEAPS {
        for tracer in tracers.iter_mut().filter(|tracer| TOOLS.contains(&tracer.name())) {
            let name = tracer.name().to_owned();
            let Heap { blocks, block_bytes } = heap;
            progress(&format!("what is lost of {blocks} blocks of {block_bytes} B: {name}"));
            let path = program.path();
            let result = match tracer.version() {
                Err(why) => Err(why),
                Ok(_) if name == LEAKD => {
                    while_it_runs(&path, heap).map_err(|error| format!("{error:#}"))
                }
                Ok(_) => {
                    at_its_end(tracer.as_mut(), &path, heap).map_err(|error| format!("{error:#}"))
                }
            };
            all.push(result.unwrap_or_else(|why| Scan {
                missing: Some(why),
                found: None,
                wrong: None,
                ..Scan::of(&name, heap, 0, 0)
            }));
        }
    }
    progress("");
    Ok(all)
}

impl Heap {
    /// The program's command that makes it.
    fn command(self) -> String {
        format!("build {} {LOST} {}", self.blocks, self.block_bytes)
    }
}

impl Scan {
    fn of(tracer: &str, heap: Heap, found: u64, wrong: u64) -> Self {
        Self {
            tracer: tracer.to_owned(),
            blocks: heap.blocks,
            block_bytes: heap.block_bytes,
            bytes_per_second: None,
            missing: None,
            seconds: None,
            found: Some(found as f64 / LOST as f64),
            wrong: Some(wrong),
            throughput: None,
        }
    }
}

fn at_its_end(tracer: &mut (dyn Tracer + 'static), program: &Path, heap: Heap) -> Result<Scan> {
    let name = tracer.name().to_owned();
    let mut session = Session::start(Some(tracer), program, (0, Duration::ZERO), |_| Ok(()))?;
    session.program.order(&heap.command())?;
    let ended = session.end()?;
    let sites = reports::read(&name, &ended.report)?;
    let lost = sites.iter().filter(|site| site.leak);
    let (mut found, mut wrong) = (0, 0);
    for site in lost {
        let count = site.blocks.unwrap_or(0);
        let is_there = site.frames.iter().any(|frame| frame == PLACE);
        *(if is_there { &mut found } else { &mut wrong }) += count;
    }
    Ok(Scan { seconds: Some(ended.seconds), ..Scan::of(&name, heap, found, wrong) })
}

fn while_it_runs(program: &Path, heap: Heap) -> Result<Scan> {
    let directory = tempfile::TempDir::with_prefix("scan-")?;
    let output = directory.path().join("report.json");
    let mut process = Commanded::start(&mut Command::new(program))?;
    let mut command = Command::new(leakctl::executable()?);
    command.args(["scan", "--no-daemon", "--json", &process.pid().to_string()]);
    command.arg("--for").arg(format!("{}s", RECORDED.as_secs())).arg("--output").arg(&output);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut scan = Ending::start(&mut command)?;
    let stderr = scan.0.stderr.take().context("a pipe")?;
    let mut lines = BufReader::new(stderr).lines();
    let attached = lines.by_ref().map_while(Result::ok).any(|line| line.contains("attached to"));
    ensure!(attached, "leakctl scan ended before it was attached");
    thread::spawn(move || lines.for_each(drop));
    process.order(&heap.command())?;

    let mut steps: Vec<(Instant, f64)> = Vec::new();
    let begin = Instant::now();
    let mut told = false;
    let status = loop {
        if !told && begin.elapsed() > BEFORE {
            kill(Pid::from_raw(scan.0.id() as i32), Signal::SIGINT)?;
            told = true;
        }
        let start = Instant::now();
        let moved = process.order(&format!("loop {}", STEP.as_millis()))?;
        let [moved] = moved[..] else { bail!("the program said {moved:?}") };
        steps.push((Instant::now(), moved as f64 / start.elapsed().as_secs_f64()));
        if let Some(status) = scan.0.try_wait()? {
            break status;
        }
    };
    // 1: something is lost.
    ensure!(matches!(status.code(), Some(0 | 1)), "leakctl scan failed ({status})");
    let report: ScanReport = serde_json::from_slice(&fs::read(&output)?)?;
    let took = Duration::from_nanos(report.method.took_ns);
    let began = steps.last().context("no step")?.0.checked_sub(took).context("a time")?;
    let rate = |during: bool| -> Vec<f64> {
        steps.iter().filter(|(end, _)| (*end > began) == during).map(|(_, rate)| *rate).collect()
    };
    let (mut found, mut wrong) = (0, 0);
    for site in &report.sites {
        let is_there = site.stack.iter().any(|frame| frame.function.as_deref() == Some(PLACE));
        *(if is_there { &mut found } else { &mut wrong }) += site.classes.definitely_lost.blocks;
    }
    Ok(Scan {
        seconds: Some(took.as_secs_f64()),
        bytes_per_second: Some(
            report.method.read_bytes as f64 * 1e9 / report.method.read_ns as f64,
        )
        .filter(|speed| speed.is_finite()),
        throughput: Some(median(&rate(true)) / median(&rate(false))),
        ..Scan::of(LEAKD, heap, found, wrong)
    })
}
