//! What a pair of malloc and free costs: bare, with empty programs on the
//! probes, and under leakd; all in one run, in turn, so that whatever else the
//! machine does hits all alike.

use std::collections::BTreeMap;

use anyhow::Result;
use leakd::engine::Engine;
use leakd::engine::target::SeenFrom;
use leakd_common::event::StackEnd;

use super::figure::{Figure, Goal};
use crate::statistics::median;
use crate::tracer::floor::Floor;
use crate::workload::target::{Pair, Program, Shape, Target};

/// What is on the probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variant {
    /// Nothing, no probes either.
    Bare,
    /// Empty programs.
    Floor,
    /// leakd.
    Traced,
    /// leakd, keeping one block for about 512 KiB.
    Sampled,
}

impl Variant {
    const ALL: [Self; 4] = [Self::Bare, Self::Floor, Self::Traced, Self::Sampled];

    /// Batches, and pairs in each: about half a millisecond long, to lie
    /// between two interruptions.
    const fn amount(self) -> (u32, u32) {
        match self {
            Self::Bare => (200, 20_000),
            Self::Floor | Self::Traced | Self::Sampled => (400, 250),
        }
    }
}

/// What was measured, by variant and shape, a value for each round.
type Results = BTreeMap<(Variant, Shape), Vec<Pair>>;

/// A stack as leakd walked it.
#[derive(Clone, Copy, Debug, Default)]
struct Walked {
    frames: usize,
    complete: bool,
}

/// All that can be on the probes.
#[derive(Debug)]
pub struct Tracers {
    /// Empty programs.
    pub floor: Floor,
    /// leakd.
    pub traced: Engine,
    /// leakd, sampling.
    pub sampled: Engine,
}

/// Measures in `rounds` rounds.
pub fn run(program: &Program, tracers: &mut Tracers, rounds: u32) -> Result<Vec<Figure>> {
    let mut results = Results::new();
    let mut walked = BTreeMap::new();
    let mut target = program.start()?;
    for round in 1..=rounds {
        eprint!("\rpairs of malloc and free: round {round} of {rounds} ");
        for variant in Variant::ALL {
            measure(variant, tracers, &mut target, &mut results, &mut walked)?;
        }
    }
    eprintln!();
    Ok(figures(&results, &walked))
}

fn measure(
    variant: Variant,
    tracers: &mut Tracers,
    target: &mut Target,
    results: &mut Results,
    walked: &mut BTreeMap<Shape, Walked>,
) -> Result<()> {
    let mut each = |target: &mut Target, shape: Shape| -> Result<()> {
        let (batches, pairs) = variant.amount();
        // Caches warm, call sites known.
        target.measure(shape, 1, pairs)?;
        let pair = target.measure(shape, batches, pairs)?;
        results.entry((variant, shape)).or_default().push(pair);
        Ok(())
    };
    match variant {
        Variant::Bare => Shape::ALL.into_iter().try_for_each(|shape| each(target, shape)),
        Variant::Floor => {
            let mut probes = tracers.floor.attach(target.pid())?;
            Shape::ALL.into_iter().try_for_each(|shape| each(target, shape))?;
            probes.detach();
            Ok(())
        }
        Variant::Traced | Variant::Sampled => {
            let engine =
                if variant == Variant::Traced { &mut tracers.traced } else { &mut tracers.sampled };
            let slot = engine.attach(target.pid(), SeenFrom::Attach)?;
            for shape in Shape::ALL {
                each(target, shape)?;
                // Threads have stacks of their own, but none deeper.
                if variant == Variant::Traced && shape != Shape::Threads {
                    walked.insert(shape, deepest(engine, slot)?);
                }
            }
            engine.detach(slot);
            Ok(())
        }
    }
}

/// The deepest stack that has been announced so far. Those of the pairs are
/// measured from the shallowest to the deepest.
fn deepest(engine: &mut Engine, slot: u16) -> Result<Walked> {
    // The rings are polled every 20 ms.
    std::thread::sleep(std::time::Duration::from_millis(60));
    while let Some(announcement) = engine.try_next() {
        engine.handle(announcement);
    }
    let Some(target) = engine.target(slot) else { return Ok(Walked::default()) };
    let look = engine.look(target, None)?;
    let stacks = look.sites.keys().filter_map(|&site| target.stack(site));
    Ok(stacks.max_by_key(|stack| stack.frames.len()).map_or_else(Walked::default, |stack| Walked {
        frames: stack.frames.len(),
        complete: StackEnd::from_number(stack.end).is_some_and(StackEnd::complete),
    }))
}

/// How a shape is called in the table, and which of its times counts: with more
/// threads than CPUs, elapsed time is mostly the scheduler's.
fn of_shape(shape: Shape) -> (&'static str, fn(&Pair) -> f64) {
    match shape {
        Shape::Main => ("near main", |pair| pair.elapsed),
        Shape::Deep => ("20 frames deep", |pair| pair.elapsed),
        Shape::Threads => ("4 threads", |pair| pair.cpu),
    }
}

fn figures(results: &Results, walked: &BTreeMap<Shape, Walked>) -> Vec<Figure> {
    let values = |variant, shape| -> Vec<f64> {
        let time = of_shape(shape).1;
        results.get(&(variant, shape)).into_iter().flatten().map(time).collect()
    };
    // Round by round, so that each is divided by its own neighbour.
    let ratio = |over, under, shape| -> Vec<f64> {
        values(over, shape).iter().zip(values(under, shape)).map(|(a, b)| a / b).collect()
    };
    let mut figures = Vec::new();
    for shape in Shape::ALL {
        let (place, _) = of_shape(shape);
        let limit = match shape {
            Shape::Main => Goal::AtMost(1.6),
            Shape::Deep => Goal::AtMost(2.2),
            Shape::Threads => Goal::None,
        };
        for (variant, name) in [
            (Variant::Bare, "bare"),
            (Variant::Floor, "floor"),
            (Variant::Traced, "traced"),
            (Variant::Sampled, "traced, sampled"),
        ] {
            let values = values(variant, shape);
            if !values.is_empty() {
                figures.push(Figure::new(format!("{place}: {name}"), "ns", Goal::None, &values));
            }
        }
        let traced = ratio(Variant::Traced, Variant::Floor, shape);
        figures.push(Figure::new(format!("{place}: traced/floor"), "x", limit, &traced));
        let sampled = ratio(Variant::Sampled, Variant::Floor, shape);
        figures.push(Figure::new(format!("{place}: sampled/floor"), "x", Goal::None, &sampled));
    }
    figures.push(per_frame(results, walked));
    for (shape, walked) in walked {
        let end = if walked.complete { "to the bottom" } else { "incomplete" };
        let name = format!("{}: frames walked", shape.word());
        figures.push(Figure::new(
            format!("{name}, {end}"),
            "",
            Goal::None,
            &[walked.frames as f64],
        ));
    }
    let waited: Vec<f64> = results
        .iter()
        .filter(|((_, shape), _)| *shape != Shape::Threads)
        .map(|(_, pairs)| median(&pairs.iter().map(|pair| 100.0 * pair.waited).collect::<Vec<_>>()))
        .collect();
    figures.push(Figure::new("noise: time without a CPU", "%", Goal::None, &waited));
    figures
}

/// What a frame more costs.
fn per_frame(results: &Results, walked: &BTreeMap<Shape, Walked>) -> Figure {
    const NAME: &str = "each frame more";
    let goal = Goal::AtMost(70.0);
    let frames = |shape| walked.get(&shape).map_or(0, |walked: &Walked| walked.frames);
    let more = frames(Shape::Deep).saturating_sub(frames(Shape::Main));
    if more == 0 {
        return Figure::missing(NAME, goal, "no deeper stack was walked");
    }
    let elapsed = |variant, shape| -> Vec<f64> {
        results.get(&(variant, shape)).into_iter().flatten().map(|pair| pair.elapsed).collect()
    };
    // The floor has its own price of a deep stack: cold return predictors.
    let added = |shape| -> Vec<f64> {
        let (traced, floor) = (elapsed(Variant::Traced, shape), elapsed(Variant::Floor, shape));
        traced.iter().zip(floor).map(|(traced, floor)| traced - floor).collect()
    };
    let values: Vec<f64> = added(Shape::Deep)
        .iter()
        .zip(added(Shape::Main))
        .map(|(deep, near)| (deep - near) / more as f64)
        .collect();
    Figure::new(NAME, "ns", goal, &values)
}
