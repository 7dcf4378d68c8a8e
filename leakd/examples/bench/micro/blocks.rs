//! A million outstanding blocks: how long a look at them takes, and how much
//! memory they do.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use leakd::engine::Engine;
use leakd::engine::target::SeenFrom;
use nix::time::{ClockId, clock_gettime};
use tempfile::TempDir;

use super::figure::{Figure, Goal};
use crate::tracer::{Attached, Options, leakctl};
use crate::workload::target::Program;

const BLOCKS: u32 = 1_000_000;
/// Numbers of call sites that they come from.
const SITES: [u32; 2] = [1, 1000];
/// The program has a few blocks of its own (its threads' tables).
const SLACK: u64 = 100;
const MEGABYTE: f64 = 1e6;

/// Measures each `rounds` times.
pub fn run(program: &Program, engine: &mut Engine, rounds: u32) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for sites in SITES {
        eprint!("\rlook at a million blocks, {sites} call sites ");
        figures.extend(look(program, engine, sites, rounds)?);
    }
    eprintln!();
    for sites in SITES {
        eprint!("\rmemory for a million blocks, {sites} call sites ");
        figures.extend(memory(program, sites)?);
    }
    eprintln!();
    Ok(figures)
}

fn place(sites: u32) -> String {
    if sites == 1 { "1 site".to_owned() } else { format!("{sites} sites") }
}

fn look(program: &Program, engine: &mut Engine, sites: u32, rounds: u32) -> Result<Vec<Figure>> {
    let mut target = program.start()?;
    let slot = engine.attach(target.pid(), SeenFrom::Attach)?;
    target.leak(BLOCKS, sites)?;
    let (mut elapsed, mut processor) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (start, used) = (Instant::now(), thread_time()?);
        let traced = engine.target(slot).context("the target has gone")?;
        let look = engine.look(traced, Some(Duration::ZERO))?;
        elapsed.push(start.elapsed().as_secs_f64());
        processor.push((thread_time()? - used).as_secs_f64());
        let seen: u64 = look.blocks.iter().flatten().map(|(_, site)| site.aged_blocks).sum();
        complete(seen)?;
    }
    engine.detach(slot);
    while engine.try_next().is_some() {}
    let name = |what: &str| format!("{}: {what}", place(sites));
    Ok(vec![
        Figure::new(name("look"), "s", Goal::AtMost(0.5), &elapsed),
        Figure::new(name("look, CPU time"), "s", Goal::None, &processor),
    ])
}

/// CPU time that this thread has used.
fn thread_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// A figure for part of the blocks would be a lie.
fn complete(seen: u64) -> Result<()> {
    let all = u64::from(BLOCKS);
    ensure!((all..=all + SLACK).contains(&seen), "{seen} of {all} blocks were seen");
    Ok(())
}

fn memory(program: &Program, sites: u32) -> Result<Vec<Figure>> {
    let directory = TempDir::with_prefix("leakd-bench-")?;
    let mut target = program.start()?;
    let report = directory.path().join("report.json");
    let options =
        Options { blocks: 4 * u64::from(BLOCKS), report, reports: true, min_age: Duration::ZERO };
    let running = leakctl::Running::start(target.pid(), &options, 0)?;
    let empty = running.tool().cost().kernel_bytes;
    target.leak(BLOCKS, sites)?;
    let full = running.tool().cost().kernel_bytes;
    let ended = running.end()?;
    let report = ended.report.targets.first().context("the report has no target")?;
    complete(report.outstanding.blocks)?;

    let name = |what: &str| format!("{}: {what}", place(sites));
    let megabytes =
        |what: &str, goal, bytes: f64| Figure::new(name(what), "MB", goal, &[bytes / MEGABYTE]);
    let mut figures = vec![
        megabytes("leakctl's peak RSS", Goal::AtMost(150.0), ended.peak_bytes as f64),
        megabytes("tables, as reported", Goal::None, report.coverage.table_bytes as f64),
    ];
    match (empty, full) {
        (Some(empty), Some(full)) => {
            let each = (full as f64 - empty as f64) / f64::from(BLOCKS);
            figures.push(megabytes("kernel memory", Goal::None, full as f64));
            figures.push(megabytes("before the blocks", Goal::None, empty as f64));
            figures.push(Figure::new(name("each block"), "B", Goal::None, &[each]));
        }
        _ => figures.push(Figure::missing(
            name("kernel memory"),
            Goal::None,
            "no cgroup that accounts for it",
        )),
    }
    let seconds = ended.duration.as_secs_f64();
    figures.push(Figure::new(name("Ctrl-C to the end"), "s", Goal::None, &[seconds]));
    Ok(figures)
}
