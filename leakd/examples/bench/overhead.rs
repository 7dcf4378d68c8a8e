//! What tracing costs: every workload by every tracer, in turn, each next to an
//! untraced measurement of its own.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::child::resident_bytes;
use crate::model::{Figures, Overhead, Row};
use crate::statistics::{Summary, median};
use crate::tracer::{Cost, LEAKD, Options, Tracer, Way, Wrapped};
use crate::workload::{Running, Sample, Workload};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    /// Rounds of everything.
    pub rounds: u32,
    /// The length of one measurement of a workload that has one case.
    pub length: Duration,
    /// And of one that has several.
    pub length_of_case: Duration,
}

/// Room for blocks: more than any of these workloads holds.
const BLOCKS: u64 = 4 << 20;

/// What was measured in one round.
#[derive(Debug)]
struct Round {
    throughput: f64,
    p50: Option<f64>,
    p99: Option<f64>,
    cpu_percent: Option<f64>,
    resident: Option<f64>,
    kernel: Option<f64>,
    lost: Option<u64>,
}

/// By tracer, then by case: the rounds, or why there are none.
type Rounds = BTreeMap<usize, Result<Vec<Vec<Round>>, String>>;

/// Measures one workload; gives a result for each of its cases.
pub fn run(
    workload: &mut dyn Workload,
    tracers: &mut [Box<dyn Tracer>],
    amount: Amount,
) -> Vec<Overhead> {
    let missing = workload.missing();
    let mut rounds: Rounds = tracers
        .iter()
        .enumerate()
        .map(|(number, tracer)| {
            let why = missing
                .clone()
                .or_else(|| tracer.version().err())
                .or_else(|| workload.unfit(tracer.way()).map(str::to_owned));
            let cases = workload.cases().iter().map(|_| Vec::new()).collect();
            (number, why.map_or(Ok(cases), Err))
        })
        .collect();
    for round in 1..=amount.rounds {
        // A process for all that attach; made anew in each round, since heaps age.
        let mut plain = None;
        for (number, tracer) in tracers.iter_mut().enumerate() {
            let Some(Ok(cases)) = rounds.get_mut(&number) else { continue };
            let (name, of) = (tracer.name(), amount.rounds);
            progress(&format!("{}: round {round} of {of}, {name}", workload.name()));
            let measured = measure(workload, tracer.as_mut(), &mut plain, amount);
            match measured {
                Ok(measured) => {
                    for (case, one) in cases.iter_mut().zip(measured) {
                        case.push(one);
                    }
                }
                Err(error) => {
                    // What is left of the process may be in a bad way.
                    plain = None;
                    rounds.insert(number, Err(format!("{error:#}")));
                }
            }
        }
    }
    progress("");
    results(workload, tracers, &rounds)
}

/// One line of progress, which the next replaces.
pub fn progress(text: &str) {
    use std::io::IsTerminal;
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
    } else if !text.is_empty() {
        eprintln!("{text}");
    }
}

/// One round of one tracer: all cases, untraced and traced.
fn measure(
    workload: &mut dyn Workload,
    tracer: &mut dyn Tracer,
    plain: &mut Option<Box<dyn Running>>,
    amount: Amount,
) -> Result<Vec<Round>> {
    let cases = workload.cases().len();
    let length = if cases == 1 { amount.length } else { amount.length_of_case };
    let directory = TempDir::with_prefix("tracer-")?;
    let report = directory.path().join("report");
    let options = Options { blocks: BLOCKS, report, reports: false, min_age: Duration::ZERO };

    // A fresh process is warmed up; one that works but once cannot be.
    let start = |workload: &mut dyn Workload, wrapped: &Wrapped| -> Result<_> {
        let mut running = workload.start(wrapped)?;
        if !workload.once() {
            for case in 0..cases {
                running.measure(case, length / 4)?;
            }
        }
        Ok(running)
    };
    let mut untraced = match plain.take() {
        Some(running) => running,
        None => start(workload, &Wrapped::default())?,
    };
    let all = |running: &mut Box<dyn Running>| -> Result<Vec<Sample>> {
        (0..cases).map(|case| running.measure(case, length)).collect()
    };
    let base = all(&mut untraced)?;

    if tracer.way() == Way::Wrap {
        let base_bytes = resident_bytes(untraced.pid());
        if !workload.once() {
            *plain = Some(untraced);
        }
        let mut wrapped = tracer.wrap(directory.path())?;
        let mut running = start(workload, &wrapped)?;
        let begin = Instant::now();
        let before = wrapped.beside.as_ref().map(|beside| beside.cost()).unwrap_or_default();
        let samples = all(&mut running)?;
        let elapsed = begin.elapsed();
        let mut after = wrapped.beside.as_ref().map(|beside| beside.cost()).unwrap_or_default();
        // In the process itself: what it has more than the untraced one.
        let bytes = resident_bytes(running.pid());
        let more = bytes.zip(base_bytes).map(|(with, without)| with.saturating_sub(without));
        after.resident_bytes = more.map(|more| more + after.resident_bytes.unwrap_or(0));
        drop(running);
        let told = wrapped.beside.take().map(|beside| beside.end()).transpose()?;
        let lost = told.and_then(|told| told.lost);
        return Ok(rounds(&base, &samples, (before, after), elapsed, lost));
    }

    let mut running =
        if workload.once() { start(workload, &Wrapped::default())? } else { untraced };
    let attached = tracer.attach(running.pid(), &options)?;
    // Call sites become known; where there is one case, that is soon done.
    if !workload.once() && cases > 1 {
        for case in 0..cases {
            running.measure(case, length / 8)?;
        }
    }
    let (before, begin) = (attached.cost(), Instant::now());
    let samples = all(&mut running)?;
    let (mut after, elapsed) = (attached.cost(), begin.elapsed());
    // One that ends with its target may have gone already.
    after.resident_bytes = after.resident_bytes.max(before.resident_bytes);
    after.kernel_bytes = after.kernel_bytes.max(before.kernel_bytes);
    let told = attached.end()?;
    if !workload.once() {
        *plain = Some(running);
    }
    Ok(rounds(&base, &samples, (before, after), elapsed, told.lost))
}

fn rounds(
    base: &[Sample],
    samples: &[Sample],
    cost: (Cost, Cost),
    elapsed: Duration,
    lost: Option<u64>,
) -> Vec<Round> {
    let cpu = cost.0.cpu_seconds.zip(cost.1.cpu_seconds);
    let cpu = cpu.map(|(before, after)| 100.0 * (after - before) / elapsed.as_secs_f64());
    let ratio = |over: Option<f64>, under: Option<f64>| Some(over? / under.filter(|x| *x > 0.0)?);
    base.iter()
        .zip(samples)
        .map(|(base, sample)| Round {
            throughput: sample.throughput / base.throughput,
            p50: ratio(sample.p50, base.p50),
            p99: ratio(sample.p99, base.p99),
            cpu_percent: cpu.map(|cpu| cpu.max(0.0)),
            resident: cost.1.resident_bytes.map(|bytes| bytes as f64),
            kernel: cost.1.kernel_bytes.map(|bytes| bytes as f64),
            lost,
        })
        .collect()
}

fn results(workload: &dyn Workload, tracers: &[Box<dyn Tracer>], rounds: &Rounds) -> Vec<Overhead> {
    let leakd = tracers.iter().position(|tracer| tracer.name() == LEAKD);
    let of = |tracer: usize, case: usize| -> Option<&Vec<Round>> {
        rounds.get(&tracer)?.as_ref().ok()?.get(case)
    };
    let row = |number: usize, case: usize| -> Row {
        let tracer = tracers[number].name().to_owned();
        let missing = rounds.get(&number).and_then(|one| one.as_ref().err()).cloned();
        let against = leakd.filter(|&leakd| leakd != number).and_then(|leakd| of(leakd, case));
        let figures = of(number, case).and_then(|own| figures(own, against));
        let missing = missing.or_else(|| figures.is_none().then(|| "not measured".to_owned()));
        Row { tracer, missing, figures }
    };
    let cases = workload.cases().into_iter().enumerate();
    cases
        .map(|(case, title)| Overhead {
            workload: workload.name().to_owned(),
            case: title,
            unit: workload.unit().to_owned(),
            latency_of: workload.latency_of().map(str::to_owned),
            rows: (0..tracers.len()).map(|number| row(number, case)).collect(),
        })
        .collect()
}

fn figures(own: &[Round], leakd: Option<&Vec<Round>>) -> Option<Figures> {
    let values =
        |get: fn(&Round) -> Option<f64>| -> Vec<f64> { own.iter().filter_map(get).collect() };
    let middle = |get| Some(median(&values(get))).filter(|_| !values(get).is_empty());
    let throughput: Vec<f64> = own.iter().map(|round| round.throughput).collect();
    let leakd_over = leakd.and_then(|leakd| {
        let pairs = leakd.iter().zip(own);
        let ratios: Vec<f64> =
            pairs.map(|(leakd, own)| leakd.throughput / own.throughput).collect();
        Summary::of(&ratios)
    });
    let lost: Option<Vec<u64>> = own.iter().map(|round| round.lost).collect();
    Some(Figures {
        throughput: Summary::of(&throughput)?,
        p50: Summary::of(&values(|round| round.p50)),
        p99: Summary::of(&values(|round| round.p99)),
        tracer_cpu_percent: middle(|round| round.cpu_percent),
        resident_bytes: middle(|round| round.resident),
        kernel_bytes: middle(|round| round.kernel),
        lost: lost.map(|lost| lost.iter().sum()),
        leakd_over,
        rounds: throughput,
    })
}

/// The workloads that the words choose; all of them if there are none.
pub fn chosen(all: Vec<Box<dyn Workload>>, words: &[String]) -> Result<Vec<Box<dyn Workload>>> {
    if words.is_empty() {
        return Ok(all);
    }
    let names: Vec<&str> = all.iter().map(|workload| workload.name()).collect();
    if let Some(word) = words.iter().find(|word| !names.iter().any(|name| name.contains(&***word)))
    {
        return Err(anyhow::anyhow!("there are: {}", names.join("; ")))
            .with_context(|| format!("no workload has {word:?} in its name"));
    }
    let is_chosen = |name: &str| words.iter().any(|word| name.contains(&**word));
    Ok(all.into_iter().filter(|workload| is_chosen(workload.name())).collect())
}
