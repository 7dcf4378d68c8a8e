//! A million outstanding blocks: how long a look at them takes, and how much
//! memory they do.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use leakd::engine::Engine;
use leakd::engine::target::SeenFrom;
use tempfile::TempDir;

use crate::figure::{Figure, Goal};
use crate::kernel_memory;
use crate::leakctl;
use crate::target::Program;

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
        figures.push(look(program, engine, sites, rounds)?);
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

fn look(program: &Program, engine: &mut Engine, sites: u32, rounds: u32) -> Result<Figure> {
    let mut target = program.start()?;
    let slot = engine.attach(target.pid(), SeenFrom::Attach)?;
    target.leak(BLOCKS, sites)?;
    let mut seconds = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        let traced = engine.target(slot).context("the target has gone")?;
        let look = engine.look(traced, Some(Duration::ZERO))?;
        seconds.push(start.elapsed().as_secs_f64());
        let seen: u64 = look.blocks.iter().flatten().map(|(_, site)| site.aged_blocks).sum();
        complete(seen)?;
    }
    engine.detach(slot);
    while engine.try_next().is_some() {}
    Ok(Figure::new(format!("{}: look", place(sites)), "s", Goal::AtMost(0.5), &seconds))
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
    let before = kernel_memory::now()?;
    let running = leakctl::Running::start(target.pid(), &directory.path().join("report.json"))?;
    let attached = kernel_memory::now()?;
    target.leak(BLOCKS, sites)?;
    let full = kernel_memory::now()?;
    let ended = running.end()?;
    let report = ended.report.targets.first().context("the report has no target")?;
    complete(report.outstanding.blocks)?;
    let megabytes = |name: &str, goal, bytes: f64| {
        Figure::new(format!("{}: {name}", place(sites)), "MB", goal, &[bytes / MEGABYTE])
    };
    let stated = report.coverage.table_bytes as f64;
    let blocks = full.since(attached);
    Ok(vec![
        megabytes("leakctl's peak RSS", Goal::AtMost(150.0), ended.peak_bytes as f64),
        Figure::new(
            format!("{}: Ctrl-C to the end", place(sites)),
            "s",
            Goal::None,
            &[ended.duration.as_secs_f64()],
        ),
        megabytes("tables, as stated", Goal::None, stated),
        megabytes("kernel memory, really", Goal::None, full.since(before)),
        megabytes("of it before the blocks", Goal::None, attached.since(before)),
        Figure::new(
            format!("{}: each block", place(sites)),
            "B",
            Goal::None,
            &[blocks / f64::from(BLOCKS)],
        ),
    ])
}
