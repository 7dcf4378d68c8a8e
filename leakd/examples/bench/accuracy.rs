//! Whether a leak that was planted among honest traffic is found, and how its
//! stack is told: each tracer with the settings that it has by default.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::model::Accuracy;
use crate::overhead::progress;
use crate::reports::{self, Site};
use crate::session::{Compiled, Session};
use crate::tracer::{FLOOR, Tracer};

const SOURCE: &str = include_str!("planted.c");
/// What the program does before a tracer attaches: its caches are full then.
const BEFORE: Duration = Duration::from_secs(5);
/// And while it is traced.
const TRACED: Duration = Duration::from_secs(15);
/// The size of a leaked block in the source.
const LEAKED: u64 = 200;
/// Room for blocks, and a third of the trace: what `leakctl attach --for 15s` has.
const OPTIONS: (u64, Duration) = (1 << 20, Duration::from_secs(5));

/// The stack of the leak, innermost first.
fn expected() -> Vec<String> {
    let callers = (1..=13).map(|number| format!("planted_{number}"));
    let outer = ["work", "main"].map(str::to_owned);
    ["planted_leak".to_owned()].into_iter().chain(callers).chain(outer).collect()
}

/// Measures all tracers that report.
pub fn run(tracers: &mut [Box<dyn Tracer>]) -> Result<Vec<Accuracy>> {
    let program = Compiled::of(SOURCE)?;
    let mut all = Vec::new();
    for tracer in tracers.iter_mut().filter(|tracer| tracer.name() != FLOOR) {
        progress(&format!("a planted leak: {}", tracer.name()));
        let name = tracer.name().to_owned();
        let missing = tracer.version().err();
        let result = match missing {
            Some(why) => Err(why),
            None => measure(tracer.as_mut(), &program.path()).map_err(|error| format!("{error:#}")),
        };
        all.push(
            result
                .unwrap_or_else(|why| Accuracy { missing: Some(why), ..result_of(&name, &[], 0) }),
        );
    }
    progress("");
    Ok(all)
}

fn measure(tracer: &mut (dyn Tracer + 'static), program: &Path) -> Result<Accuracy> {
    let name = tracer.name().to_owned();
    let mut before = 0;
    let mut session = Session::start(Some(tracer), program, OPTIONS, |program| {
        before = leaked(program.order(&BEFORE.as_millis().to_string())?)?;
        Ok(())
    })?;
    let after = leaked(session.program.order(&TRACED.as_millis().to_string())?)?;
    let ended = session.end()?;
    let sites = reports::read(&name, &ended.report)?;
    ensure!(after > before, "the program leaked nothing");
    Ok(result_of(&name, &sites, after - before))
}

fn leaked(answer: Vec<u64>) -> Result<u64> {
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
    let share = |value: u64, of: u64| value as f64 / of as f64;
    Accuracy {
        tracer: tracer.to_owned(),
        missing: None,
        rank: place.map(|place| place + 1),
        listed: sites.len(),
        blocks: site.and_then(|site| site.blocks).map(|blocks| share(blocks, planted)),
        bytes: site.map(|site| share(site.bytes, planted * LEAKED)),
        frames: site.map_or(0, right),
        frames_of: expected.len(),
        called_leak: site.is_some_and(|site| site.leak),
    }
}
