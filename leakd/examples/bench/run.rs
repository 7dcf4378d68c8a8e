//! A run: what is measured, in which order, and where its results go.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};

use crate::arguments::{Arguments, Command};
use crate::machine::{Machine, load};
use crate::model::{About, Document, SCHEMA};
use crate::overhead::{self, Amount};
use crate::render::{html, markdown, table};
use crate::tracer::{self, FLOOR, LEAKD, MEMLEAK, Tracer};
use crate::workload::{self, Workload};
use crate::{accuracy, goals, regression, scale, scan};

/// Rounds, if nobody says otherwise: of a full run and of a quick one.
const ROUNDS: (u32, u32) = (3, 3);
/// Tracers of a quick run.
const QUICK: [&str; 3] = [FLOOR, LEAKD, MEMLEAK];

/// Which parts are measured.
#[derive(Clone, Copy, Debug, Default)]
struct Parts {
    overhead: bool,
    accuracy: bool,
    scale: bool,
    scan: bool,
    regression: bool,
}

impl Parts {
    fn of(arguments: &Arguments) -> Self {
        match &arguments.command {
            // The quick run is for what must not become slower.
            None if arguments.quick => Self { overhead: true, regression: true, ..Self::default() },
            None => {
                Self { overhead: true, accuracy: true, scale: true, scan: true, regression: false }
            }
            Some(command) => Self {
                overhead: matches!(command, Command::Overhead),
                accuracy: matches!(command, Command::Accuracy),
                scale: matches!(command, Command::Scale),
                scan: matches!(command, Command::Scan),
                regression: false,
            },
        }
    }
}

/// Measures what is wanted, shows it as it comes, and says whether all that must
/// not grow has not.
pub fn measure(arguments: &Arguments) -> Result<bool> {
    let parts = Parts::of(arguments);
    let mut tracers = tracers(arguments);
    let mut document = empty(arguments, &tracers);
    let line = |line: &str| {
        if !arguments.json {
            println!("{line}");
        }
    };
    // A part, and an empty line behind it.
    let say = |lines: Vec<String>| {
        if !lines.is_empty() {
            line(&format!("{}\n", lines.join("\n")));
        }
    };
    let begin = Instant::now();
    let workloads = workloads(arguments)?;
    say(table::head(&document));
    if parts.overhead {
        let amount = amount(arguments);
        for mut workload in workloads {
            for one in overhead::run(workload.as_mut(), &mut tracers, amount) {
                say(table::overhead(&one));
                document.overhead.push(one);
            }
        }
    }
    if parts.accuracy {
        document.accuracy = accuracy::run(&mut tracers)?;
        say(table::accuracy(&document.accuracy));
    }
    if parts.scale {
        table::scale_heading().iter().for_each(|heading| line(heading));
        document.scale = scale::run(&mut tracers, |one| line(&table::scale_line(one)))?;
        line("");
    }
    if parts.scan {
        document.scan = scan::run(&mut tracers)?;
        say(table::scan(&document.scan));
    }
    document.goals = goals::of(&document);
    say(table::goals(&document.goals));
    if parts.regression {
        let regression = regression::run(&document, arguments.record)?;
        say(table::regression(&regression));
        document.regression = Some(regression);
    }
    document.seconds = begin.elapsed().as_secs_f64();
    document.load.1 = load();
    finish(arguments, &document)?;
    let lines = document.regression.iter().flat_map(|regression| &regression.lines);
    Ok(!lines.into_iter().any(|line| line.failed))
}

/// Shows what earlier runs have found.
pub fn render(arguments: &Arguments, files: &[PathBuf]) -> Result<()> {
    let mut documents = files.iter().map(|file| read(file));
    let mut whole = documents.next().context("no file")??;
    for document in documents {
        whole.merge(document?)?;
    }
    whole.goals = goals::of(&whole);
    if !arguments.json {
        for lines in table::all(&whole) {
            println!("{}\n", lines.join("\n"));
        }
    }
    finish(arguments, &whole)
}

fn read(file: &Path) -> Result<Document> {
    let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let document: Document = serde_json::from_slice(&text)
        .with_context(|| format!("{} is no result of this benchmark", file.display()))?;
    ensure!(document.schema == SCHEMA, "{} is {:?}, not {SCHEMA}", file.display(), document.schema);
    Ok(document)
}

/// The files, and the JSON if it is wanted.
fn finish(arguments: &Arguments, document: &Document) -> Result<()> {
    let text = serde_json::to_string_pretty(document)?;
    let directory = match &arguments.output {
        Some(directory) => directory.clone(),
        None => beside_programs()?,
    };
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    fs::write(directory.join("results.json"), &text)?;
    fs::write(directory.join("index.html"), html::page(document))?;
    if arguments.write_docs {
        markdown::write(document)?;
    }
    if arguments.json {
        println!("{text}");
    } else {
        println!("{}", directory.join("index.html").display());
    }
    Ok(())
}

/// target/bench, as seen from target/release/examples.
fn beside_programs() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    Ok(this.ancestors().nth(3).context("this program is in no target directory")?.join("bench"))
}

fn amount(arguments: &Arguments) -> Amount {
    let rounds = if arguments.quick { ROUNDS.1 } else { ROUNDS.0 };
    Amount {
        rounds: arguments.rounds.unwrap_or(rounds),
        length: Duration::from_millis(1000),
        length_of_case: Duration::from_millis(250),
    }
}

fn tracers(arguments: &Arguments) -> Vec<Box<dyn Tracer>> {
    let wanted = |name: &str| {
        let quick = !arguments.quick || QUICK.contains(&name);
        let chosen = &arguments.tracer;
        let is_chosen = |word: &String| name.starts_with(&**word);
        quick && (name == LEAKD || chosen.is_empty() || chosen.iter().any(is_chosen))
    };
    tracer::all().into_iter().filter(|tracer| wanted(tracer.name())).collect()
}

fn workloads(arguments: &Arguments) -> Result<Vec<Box<dyn Workload>>> {
    let all = if arguments.quick { workload::quick() } else { workload::all() };
    overhead::chosen(all, &arguments.only)
}

fn empty(arguments: &Arguments, tracers: &[Box<dyn Tracer>]) -> Document {
    let about = |tracer: &dyn Tracer| {
        let version = tracer.version();
        About {
            name: tracer.name().to_owned(),
            about: tracer.about().to_owned(),
            version: version.clone().ok(),
            missing: version.err(),
        }
    };
    Document {
        schema: SCHEMA.to_owned(),
        started: leakd::report::time::rfc3339(SystemTime::now()),
        seconds: 0.0,
        quick: arguments.quick,
        rounds: amount(arguments).rounds,
        machine: Machine::ask(),
        load: (load(), 0.0),
        tracers: tracers.iter().map(|tracer| about(tracer.as_ref())).collect(),
        overhead: Vec::new(),
        accuracy: Vec::new(),
        scale: Vec::new(),
        scan: Vec::new(),
        regression: None,
        goals: Vec::new(),
    }
}
