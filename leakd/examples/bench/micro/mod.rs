//! Single figures, each by itself: what a trap costs, what a frame more does.

mod attach;
mod blocks;
pub mod figure;
mod heal;
mod pairs;
mod programs;
mod tables;
mod traps;

use anyhow::{Context, Result};
use clap::ValueEnum;
use leakd::engine::{Engine, Settings};
use serde_json::json;

use crate::machine::{Machine, load};
use crate::tracer::floor::Floor;
use crate::tracer::leakd::SAMPLE_BYTES;
use crate::workload::target::Program;
use figure::Figure;
use pairs::Tracers;

/// Options of `bench micro`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How often everything is measured, in turn.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Measure only these.
    #[arg(long, value_enum)]
    only: Vec<Part>,
}

/// A part of it.
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

/// Measures and prints.
pub fn run(arguments: &Arguments, json: bool) -> Result<()> {
    let machine = Machine::ask();
    let load_before = load();
    let mut parts = Vec::new();
    for part in Part::ALL {
        if arguments.only.is_empty() || arguments.only.contains(&part) {
            let figures = measure(part, arguments.rounds).with_context(|| part.title())?;
            parts.push((part, figures));
        }
    }
    if json {
        print_json(&machine, (load_before, load()), arguments.rounds, &parts)
    } else {
        print_text(&machine, (load_before, load()), arguments.rounds, &parts);
        Ok(())
    }
}

fn measure(part: Part, rounds: u32) -> Result<Vec<Figure>> {
    let program = Program::compile()?;
    let mut engine = Engine::start(Settings::default())?;
    match part {
        Part::Traps => traps::run(&program, &mut Floor::load(engine.method())?, rounds),
        Part::Pairs => {
            let sampling = Settings { sample_bytes: SAMPLE_BYTES, ..Settings::default() };
            let mut tracers = Tracers {
                floor: Floor::load(engine.method())?,
                sampled: Engine::start(sampling)?,
                traced: engine,
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
        "schema": "leakd.bench.micro/1",
        "machine": machine,
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
