//! What one trap costs on this machine: at an instruction that the kernel
//! emulates, and at one that it single-steps. The second is a debug exception,
//! which a hypervisor may make very dear; tools that probe functions at their
//! entry, whatever stands there, pay it.

use anyhow::{Context, Result};
use leakd_common::cookie::Function;

use super::figure::{Figure, Goal};
use crate::tracer::floor::Floor;
use crate::workload::target::{Program, Shape};

/// Batches, and pairs in each.
const AMOUNT: (u32, u32) = (200, 250);

/// Measures an empty program on `free`, `rounds` times.
pub fn run(program: &Program, floor: &mut Floor, rounds: u32) -> Result<Vec<Figure>> {
    let mut target = program.start()?;
    let place = floor
        .place(target.pid(), Function::Free)?
        .context("the traced program's C library has no `free`")?;
    let (mut emulated, mut stepped) = (Vec::new(), Vec::new());
    let mut price = |offset: Option<u64>| -> Result<f64> {
        let link = match offset {
            Some(offset) => Some(floor.attach_at(target.pid(), &place, offset)?),
            None => None,
        };
        let (batches, pairs) = AMOUNT;
        target.measure(Shape::Main, 1, pairs)?;
        let pair = target.measure(Shape::Main, batches, pairs)?;
        drop(link);
        Ok(pair.elapsed)
    };
    for _ in 0..rounds {
        let bare = price(None)?;
        emulated.push(price(Some(place.file_offset))? - bare);
        stepped.push(price(Some(place.entry_offset))? - bare);
    }
    let ratio: Vec<f64> = stepped.iter().zip(&emulated).map(|(a, b)| a / b).collect();
    Ok(vec![
        Figure::new("where leakd probes free", "ns", Goal::None, &emulated),
        Figure::new("at free's first instruction", "ns", Goal::None, &stepped),
        Figure::new("first instruction/leakd's place", "x", Goal::None, &ratio),
    ])
}
