//! What tracing costs, measured: `cargo xtask bench`.
//!
//! docs/BENCHMARKS.md says what each figure means. This is a benchmark and not
//! a test: that a goal is missed is printed, but is no failure.
#![allow(clippy::print_stdout, reason = "it prints its result")]

mod attach;
mod blocks;
mod child;
mod figure;
mod floor;
mod heal;
mod kernel_memory;
mod leakctl;
mod machine;
mod pairs;
mod peer;
mod postgres;
mod programs;
mod statistics;
mod tables;
mod target;
mod traps;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use leakd::engine::{Engine, Settings};
use serde_json::json;

use figure::Figure;
use floor::Floor;
use machine::{Machine, load};
use pairs::Tracers;
use peer::Peer;
use target::Program;

/// Mean bytes between two samples, in the variant that samples.
const SAMPLE_BYTES: u64 = 512 << 10;

/// Measures what tracing costs.
#[derive(Debug, Parser)]
struct Arguments {
    /// How often everything is measured, in turn.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Measure only these.
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Do without the other tool (memleak, bpftrace), which takes its time.
    #[arg(long)]
    no_peer: bool,
    /// Write one JSON document instead of text.
    #[arg(long)]
    json: bool,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// One trap.
    Traps,
    /// A pair of malloc and free.
    Pairs,
    /// The time in leakd's own programs.
    Programs,
    /// Attach and detach.
    Attach,
    /// A million outstanding blocks.
    Blocks,
    /// The unwind tables of a running postgres.
    Tables,
    /// Stacks through a library that was just loaded.
    Heal,
}

impl Part {
    const ALL: [Self; 7] = [
        Self::Traps,
        Self::Pairs,
        Self::Programs,
        Self::Attach,
        Self::Blocks,
        Self::Tables,
        Self::Heal,
    ];

    const fn title(self) -> &'static str {
        match self {
            Self::Traps => "a trap",
            Self::Pairs => "a pair of malloc and free",
            Self::Programs => "of a pair, in leakd's programs",
            Self::Attach => "a busy redis-server",
            Self::Blocks => "a million outstanding blocks",
            Self::Tables => "unwind tables of a postgres",
            Self::Heal => "a library that was just loaded",
        }
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let _entered = runtime.enter();
    leakd::preflight::Facts::gather().check()?;

    let machine = Machine::ask();
    let load_before = load();
    let mut parts = Vec::new();
    for part in Part::ALL {
        if arguments.only.is_empty() || arguments.only.contains(&part) {
            let figures = measure(part, &arguments).with_context(|| part.title())?;
            parts.push((part, figures));
        }
    }
    if arguments.json {
        print_json(&machine, (load_before, load()), arguments.rounds, &parts)
    } else {
        print_text(&machine, (load_before, load()), arguments.rounds, &parts);
        Ok(())
    }
}

fn measure(part: Part, arguments: &Arguments) -> Result<Vec<Figure>> {
    let program = Program::compile()?;
    let mut engine = Engine::start(Settings::default())?;
    let rounds = arguments.rounds;
    match part {
        Part::Traps => traps::run(&program, &mut Floor::load(engine.method())?, rounds),
        Part::Pairs => {
            let sampling = Settings { sample_bytes: SAMPLE_BYTES, ..Settings::default() };
            let mut tracers = Tracers {
                floor: Floor::load(engine.method())?,
                sampled: Engine::start(sampling)?,
                traced: engine,
                peer: if arguments.no_peer { None } else { Peer::find() },
            };
            pairs::run(&program, &mut tracers, rounds)
        }
        Part::Programs => programs::run(&program, &mut engine, rounds),
        Part::Attach => attach::run(&mut engine, rounds),
        Part::Blocks => blocks::run(&program, &mut engine, rounds),
        Part::Tables => tables::run(rounds),
        Part::Heal => heal::run(&mut engine, rounds),
    }
}

fn print_text(machine: &Machine, load: (f64, f64), rounds: u32, parts: &[(Part, Vec<Figure>)]) {
    println!("{}", machine.line());
    println!("{rounds} rounds; load average {:.1} before, {:.1} after", load.0, load.1);
    for (part, figures) in parts {
        println!("\n{}", Figure::heading(part.title()));
        for figure in figures {
            println!("{}", figure.line());
        }
    }
    let figures = || parts.iter().flat_map(|(_, figures)| figures);
    let goals = figures().filter(|figure| figure.has_goal()).count();
    let missed = figures().filter(|figure| figure.misses()).count();
    println!("\n{} of {goals} goals met, {missed} not", goals - missed);
}

fn print_json(
    machine: &Machine,
    load: (f64, f64),
    rounds: u32,
    parts: &[(Part, Vec<Figure>)],
) -> Result<()> {
    let mut document = json!({
        "schema": "leakd.bench/1",
        "machine": machine.json(),
        "rounds": rounds,
        "load_before": load.0,
        "load_after": load.1,
    });
    for (part, figures) in parts {
        let name = part.to_possible_value().map(|value| value.get_name().to_owned());
        document[name.unwrap_or_default()] = figures.iter().map(Figure::json).collect();
    }
    println!("{}", serde_json::to_string_pretty(&document)?);
    Ok(())
}
