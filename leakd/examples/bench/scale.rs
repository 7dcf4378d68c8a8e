//! A process with up to ten million outstanding blocks: what each costs, how long a
//! report takes, and whether it is whole.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::compiled::Compiled;
use crate::model::Scale;
use crate::overhead::progress;
use crate::reports;
use crate::session::Session;
use crate::tracer::{FLOOR, LEAKD, Tracer};
use crate::workload::commanded::Commanded;
use crate::workload::target;

/// Numbers of blocks.
const BLOCKS: [u64; 3] = [100_000, 1_000_000, 10_000_000];
/// Call sites that they come from.
const SITES: u64 = 1000;
/// The size of each.
const SIZE: u64 = 64;
/// Room for what the program takes besides.
const SLACK: u64 = 100_000;
/// The script clears its tables entry by entry at its end: that takes minutes for
/// more.
const MOST_BPFTRACE: u64 = 100_000;

/// Measures all tracers that report.
pub fn run(tracers: &mut [Box<dyn Tracer>], mut say: impl FnMut(&Scale)) -> Result<Vec<Scale>> {
    let program = Compiled::of(target::SOURCE)?;
    let mut all = Vec::new();
    for blocks in BLOCKS {
        for tracer in tracers.iter_mut() {
            let name = tracer.name();
            if name == FLOOR || (name.starts_with(LEAKD) && name != LEAKD) {
                continue;
            }
            progress(&format!("{blocks} blocks: {name}"));
            let why = tracer.version().err().or_else(|| {
                (name == "bpftrace" && blocks > MOST_BPFTRACE)
                    .then(|| "left out: its end takes minutes".to_owned())
            });
            let result = match why {
                Some(why) => Err(why),
                None => measure(tracer.as_mut(), &program.path(), blocks)
                    .map_err(|error| format!("{error:#}")),
            };
            let one = result.unwrap_or_else(|why| Scale {
                tracer: tracer.name().to_owned(),
                blocks,
                missing: Some(why),
                slower: None,
                throughput: None,
                bytes_each: None,
                report_seconds: None,
                seen: None,
                lost: None,
            });
            progress("");
            say(&one);
            all.push(one);
        }
    }
    Ok(all)
}

/// Pairs of malloc and free beside the blocks: the rate.
fn loop_rate(session: &mut Session) -> Result<f64> {
    session.program.measure("loop 1 0 1 50")?;
    Ok(session.program.measure("loop 1 0 1 200")?.throughput)
}

fn fill(session: &mut Session, blocks: u64) -> Result<f64> {
    let answer = session.program.order(&format!("leak {blocks} {SITES}"))?;
    let [elapsed] = answer[..] else { bail!("the program said {answer:?}") };
    Ok(elapsed as f64)
}

fn measure(tracer: &mut (dyn Tracer + 'static), path: &Path, blocks: u64) -> Result<Scale> {
    let name = tracer.name().to_owned();
    let options = (blocks + SLACK, Duration::ZERO);
    // Its libraries are mapped then.
    let begin = |program: &mut Commanded| program.order("loop 1 0 1 1").map(drop);
    let mut bare = Session::start(None, path, options, begin)?;
    let bare_elapsed = fill(&mut bare, blocks)?;
    let bare_rate = loop_rate(&mut bare)?;
    let bare_bytes = bare.resident_bytes().unwrap_or(0);
    drop(bare);

    let mut session = Session::start(Some(tracer), path, options, begin)?;
    let elapsed = fill(&mut session, blocks)?;
    let rate = loop_rate(&mut session)?;
    let (own, cost) = (session.resident_bytes().unwrap_or(0), session.cost());
    let parts = [
        own.saturating_sub(bare_bytes),
        cost.resident_bytes.unwrap_or(0),
        cost.kernel_bytes.unwrap_or(0),
    ];
    let ended = session.end()?;
    let sites = reports::read(&name, &ended.report)?;
    // Some tell no blocks; all are of one size.
    let blocks_of = |site: &reports::Site| site.blocks.unwrap_or(site.bytes / SIZE);
    let seen: u64 = sites.iter().map(blocks_of).sum();
    ensure!(bare_elapsed > 0.0 && bare_rate > 0.0, "the untraced program did nothing");
    Ok(Scale {
        tracer: name,
        blocks,
        missing: None,
        slower: Some(elapsed / bare_elapsed),
        throughput: Some(rate / bare_rate),
        bytes_each: Some(parts.iter().sum::<u64>() as f64 / blocks as f64),
        report_seconds: Some(ended.seconds),
        seen: Some(seen as f64 / blocks as f64),
        lost: ended.told.lost,
    })
}
