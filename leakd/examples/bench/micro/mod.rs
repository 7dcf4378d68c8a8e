//! Single figures, each by itself: what a trap costs, what a frame more does.

mod attach;
mod blocks;
pub mod figure;
mod heal;
mod pairs;
mod programs;
mod tables;
mod traps;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use leakd::engine::{Engine, Settings};
use serde_json::json;

use crate::machine::{Machine, load};
use crate::tracer::floor::Floor;
use crate::tracer::leakd::SAMPLE_BYTES;
use crate::workload::target::Program;
use figure::Figure;
use pairs::Tracers;

/// How often everything is measured, unless said otherwise.
const ROUNDS: u32 = 9;

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

/// The parts whose names begin with one of the words; without words, all.
fn chosen(words: &[String]) -> Result<Vec<Part>> {
    let name = |part: &Part| part.to_possible_value().map(|value| value.get_name().to_owned());
    let begins = |part: &Part, word: &str| name(part).is_some_and(|name| name.starts_with(word));
    for word in words {
        if !Part::ALL.iter().any(|part| begins(part, word)) {
            let all: Vec<_> = Part::ALL.iter().filter_map(name).collect();
            bail!("no part begins with {word:?}: there are: {}", all.join(", "));
        }
    }
    let is_chosen = |part: &Part| words.is_empty() || words.iter().any(|word| begins(part, word));
    Ok(Part::ALL.into_iter().filter(is_chosen).collect())
}

/// Measures and prints.
pub fn run(only: &[String], rounds: Option<u32>, json: bool) -> Result<()> {
    let chosen = chosen(only)?;
    let rounds = rounds.unwrap_or(ROUNDS);
    let machine = Machine::ask();
    let load_before = load();
    let mut parts = Vec::new();
    for part in chosen {
        parts.push((part, measure(part, rounds).with_context(|| part.title())?));
    }
    if json {
        print_json(&machine, (load_before, load()), rounds, &parts)
    } else {
        print_text(&machine, (load_before, load()), rounds, &parts);
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
