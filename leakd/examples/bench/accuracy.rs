//! Whether a leak that was planted among honest traffic is found, and how its
//! stack is told: each tracer with the settings that it has by default.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::compiled::Compiled;
use crate::model::Accuracy;
use crate::overhead::progress;
use crate::reports::{self, Site};
use crate::session::Session;
use crate::tracer::{FLOOR, Tracer};

const SOURCE: &str = include_str!("planted.c");
/// How long the program works before a tracer attaches, and while it is traced:
/// leakd takes a minute to call something a leak.
const BEFORE: Duration = Duration::from_millis(100);
const TRACED: Duration = Duration::from_secs(66);
/// The size of a leaked block in the source.
const LEAKED: u64 = 200;
/// Room for blocks, and a third of the trace: what `leakctl attach` has by default.
const OPTIONS: (u64, Duration) = (1 << 20, Duration::from_secs(10));

/// The stack of the leak, innermost first.
fn expected() -> Vec<String> {
    let callers = (1..=13).map(|number| format!("planted_{number}"));
    let outer = ["work", "main"].map(str::to_owned);
    ["planted_leak".to_owned()].into_iter().chain(callers).chain(outer).collect()
}

/// A program under one tracer.
struct Trial {
    session: Session,
    /// Blocks that it had leaked when the tracer came.
    before: u64,
}

/// Measures all tracers that report: side by side, since nothing is timed.
pub fn run(tracers: &mut [Box<dyn Tracer>]) -> Result<Vec<Accuracy>> {
    let program = Compiled::of(SOURCE)?;
    let mut trials = Vec::new();
    for tracer in tracers.iter_mut().filter(|tracer| tracer.name() != FLOOR) {
        let name = tracer.name().to_owned();
        progress(&format!("a planted leak: {name} begins"));
        let trial = match tracer.version() {
            Err(why) => Err(why),
            Ok(_) => start(tracer.as_mut(), &program.path()).map_err(|error| format!("{error:#}")),
        };
        trials.push((name, trial));
    }
    progress(&format!("a planted leak: all of them, {} s", TRACED.as_secs()));
    let order = TRACED.as_millis().to_string();
    for (_, trial) in &mut trials {
        let Ok(running) = trial else { continue };
        if let Err(error) = running.session.program.begin(&order) {
            *trial = Err(format!("{error:#}"));
        }
    }
    let mut all = Vec::new();
    for (name, trial) in trials {
        let result = trial.and_then(|trial| {
            progress(&format!("a planted leak: {name} reports"));
            finish(&name, trial, &order).map_err(|error| format!("{error:#}"))
        });
        all.push(
            result
                .unwrap_or_else(|why| Accuracy { missing: Some(why), ..result_of(&name, &[], 0) }),
        );
    }
    progress("");
    Ok(all)
}

fn start(tracer: &mut (dyn Tracer + 'static), program: &Path) -> Result<Trial> {
    let mut before = 0;
    let session = Session::start(Some(tracer), program, OPTIONS, |program| {
        before = leaked(&program.order(&BEFORE.as_millis().to_string())?)?;
        Ok(())
    })?;
    Ok(Trial { session, before })
}

fn finish(name: &str, mut trial: Trial, order: &str) -> Result<Accuracy> {
    let after = leaked(&trial.session.program.answer(order)?)?;
    let ended = trial.session.end()?;
    let sites = reports::read(name, &ended.report)?;
    ensure!(after > trial.before, "the program leaked nothing");
    Ok(result_of(name, &sites, after - trial.before))
}

fn leaked(answer: &[u64]) -> Result<u64> {
    ensure!(answer.len() == 1, "the program said {answer:?}");
    Ok(answer[0])
}

fn result_of(tracer: &str, sites: &[Site], planted: u64) -> Accuracy {
    let expected = expected();
    let right = |site: &Site| {
        site.frames.iter().zip(&expected).take_while(|(frame, name)| frame == name).count()
    };
    let place = sites.iter().position(|site| right(site) > 0);
    let site = place.map(|place| &sites[place]);
    // A compiler may call the same stack from two places in main: whole stacks are
    // one leak.
    let same = |other: &&Site| match site.map(right) {
        Some(frames) if frames == expected.len() => right(other) == frames,
        _ => site.is_some_and(|site| std::ptr::eq(site, *other)),
    };
    let sum = |value: &dyn Fn(&Site) -> Option<u64>| -> Option<u64> {
        sites.iter().filter(same).map(value).sum()
    };
    let share = |value: u64, of: u64| value as f64 / of as f64;
    Accuracy {
        tracer: tracer.to_owned(),
        missing: None,
        rank: place.map(|place| place + 1),
        listed: sites.len(),
        blocks: sum(&|site| site.blocks).map(|blocks| share(blocks, planted)),
        bytes: site.map(|_| share(sum(&|site| Some(site.bytes)).unwrap_or(0), planted * LEAKED)),
        frames: site.map_or(0, right),
        frames_of: expected.len(),
        called_leak: site.is_some_and(|site| site.leak),
    }
}
