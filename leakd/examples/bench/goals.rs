//! What was to be reached, and what bounds it on this machine.

use crate::model::{Document, Figures, Goal};
use crate::render::number;
use crate::statistics::Summary;
use crate::tracer::{FLOOR, LEAKD, MEMLEAK};
use crate::workload::{loops, nginx};

/// memleak's price over leakd's, where every instruction of a pair is probed.
const LOOP: f64 = 8.0;
/// leakd's throughput over memleak's, in a server.
const SERVER: f64 = 6.0;

/// The goals that a document can tell of.
pub fn of(document: &Document) -> Vec<Goal> {
    let first = |workload: &str, case: &str| {
        document.overhead.iter().find(|one| one.workload == workload && one.case == case)
    };
    let places = [
        ("malloc loop, leakd over memleak", loops::NAME, loops::Loops::first(), LOOP),
        ("nginx, leakd over memleak", nginx::NAME, String::new(), SERVER),
    ];
    places
        .into_iter()
        .filter_map(|(name, workload, case, at_least)| {
            let one = first(workload, &case)?;
            let (floor, memleak) = (one.figures(FLOOR), one.figures(MEMLEAK));
            Some(Goal {
                name: name.to_owned(),
                at_least,
                value: memleak.and_then(|memleak| memleak.leakd_over),
                bound: memleak.and_then(|memleak| over(floor?, memleak)),
                note: note(floor, memleak, one.figures(LEAKD)),
            })
        })
        .collect()
}

/// What a tracer could reach at best that takes leakd's three traps a pair and does
/// nothing in them.
fn note(floor: Option<&Figures>, memleak: Option<&Figures>, leakd: Option<&Figures>) -> String {
    let Some(memleak) = memleak else {
        return "memleak was not measured".to_owned();
    };
    let ratios = || Some((over(floor?, memleak)?, over(floor?, leakd?)?));
    let Some((most, left)) = ratios() else { return String::new() };
    format!(
        "On this machine the traps alone allow {} ({} to {}): what empty programs in leakd's \
         places reach over memleak. They are {} times as fast as leakd; no probes at all are {} \
         times as fast as memleak.",
        number(most.median),
        number(most.low),
        number(most.high),
        number(left.median),
        number(1.0 / memleak.throughput.median),
    )
}

/// How many times one is as fast as another, round by round.
fn over(one: &Figures, other: &Figures) -> Option<Summary> {
    let ratios: Vec<f64> =
        one.rounds.iter().zip(&other.rounds).map(|(one, other)| one / other).collect();
    Summary::of(&ratios)
}
