//! What the kernel measured of leakd's own programs: its run statistics.

use anyhow::Result;
use aya::programs::loaded_programs;
use aya::sys::{Stats, enable_stats};
use leakd::engine::Engine;
use leakd::engine::target::SeenFrom;

use super::figure::{Figure, Goal};
use crate::statistics::median;
use crate::workload::target::{Program, Shape};

/// The kernel's time is elapsed time: short batches, to lie between two
/// interruptions, and the median of them.
const BATCHES: u32 = 100;
/// Pairs in each batch.
const PAIRS: u32 = 200;
/// The uprobe programs; a session's runs twice in a pair.
const NAMES: [&str; 4] = ["allocate_session", "allocate_entry", "allocate_return", "free_entry"];
/// Names are cut off by the kernel (BPF_OBJ_NAME_LEN).
const NAME_LENGTH: usize = 15;

/// Runs and nanoseconds of all programs of a name.
fn totals(name: &str) -> Result<(u64, f64)> {
    let name = &name[..name.len().min(NAME_LENGTH)];
    let mut total = (0, 0.0);
    for program in loaded_programs() {
        // One that has gone meanwhile is none of ours.
        let Ok(program) = program else { continue };
        if program.name() == name.as_bytes() {
            total.0 += program.run_count();
            total.1 += program.run_time().as_nanos() as f64;
        }
    }
    Ok(total)
}

/// Measures the programs of an engine, `rounds` times.
pub fn run(program: &Program, engine: &mut Engine, rounds: u32) -> Result<Vec<Figure>> {
    let _enabled = enable_stats(Stats::RunTime)?;
    let mut target = program.start()?;
    let slot = engine.attach(target.pid(), SeenFrom::Attach)?;
    let mut figures = Vec::new();
    for shape in [Shape::Main, Shape::Deep] {
        target.measure(shape, 1, 100)?;
        for name in NAMES {
            let (mut values, mut runs) = (Vec::new(), 0);
            for _ in 0..rounds {
                let mut batches = Vec::new();
                for _ in 0..BATCHES {
                    let before = totals(name)?;
                    target.measure(shape, 1, PAIRS)?;
                    let after = totals(name)?;
                    runs += after.0 - before.0;
                    batches.push((after.1 - before.1) / f64::from(PAIRS));
                }
                values.push(median(&batches));
            }
            if runs > 0 {
                let name = format!("{}: {name}", shape.word());
                figures.push(Figure::new(name, "ns", Goal::None, &values));
            }
        }
    }
    engine.detach(slot);
    Ok(figures)
}
