//! How often verdicts are right: `cargo xtask bench verdicts`.
//!
//! Runs the programs of `tests/programs/behaviours`, of each of which it is known
//! whether it leaks, has leakctl watch them, and compares. A measurement and not a
//! test: that a goal is missed is printed, but is no failure.
#![allow(clippy::print_stdout, reason = "it prints its result")]

mod program;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Deserialize;
use serde_json::{Value, json};

use program::{Compiled, Running};

/// Which programs leak: for all that are compiled here.
const LABELS: &str = include_str!("../../tests/programs/behaviours/labels.json");
/// What is to be reached, and is not to be tuned to.
const GOAL: (f64, f64) = (0.95, 0.9);

/// Measures how often verdicts are right.
#[derive(Debug, Parser)]
struct Arguments {
    /// How long they are watched.
    #[arg(long = "for", default_value = "2m", value_parser = leakd::duration::parse)]
    length: Duration,
    /// Processes that one leakctl watches at a time.
    #[arg(long, default_value_t = 32)]
    together: usize,
    /// Only programs whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Write one JSON document instead of text.
    #[arg(long)]
    json: bool,
    /// Keep leakctl's reports in this folder.
    #[arg(long)]
    reports: Option<PathBuf>,
}

/// What is known of a program.
#[derive(Clone, Debug, Deserialize)]
struct Label {
    language: String,
    name: String,
    leaks: bool,
    /// The function that the leak is allocated in, where it has a name.
    function: Option<String>,
    /// In words.
    about: String,
    /// It was written after the judge was, and not looked at before.
    #[serde(default)]
    held_out: bool,
}

/// What leakctl said of it.
#[derive(Debug)]
struct Outcome {
    label: Label,
    verdict: String,
    confidence: Option<String>,
    evidence: String,
    /// Whether a leak is told where it is.
    place: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let labels: Vec<Label> = serde_json::from_str(LABELS)?;
    let wanted = |label: &&Label| match &arguments.only {
        Some(part) => label.name.contains(part.as_str()),
        None => true,
    };
    let labels: Vec<Label> = labels.iter().filter(wanted).cloned().collect();
    let compiled = Compiled::all()?;
    let mut results = Vec::new();
    for (number, group) in labels.chunks(arguments.together.max(1)).enumerate() {
        eprintln!("watching {} programs for {:?}", group.len(), arguments.length);
        results.extend(watch(group, &compiled, &arguments, number)?);
    }
    report(&results, &arguments)
}

/// Runs some programs, and has leakctl watch them.
fn watch(
    labels: &[Label],
    compiled: &Compiled,
    arguments: &Arguments,
    number: usize,
) -> Result<Vec<Outcome>> {
    let running: Vec<Running> = labels
        .iter()
        .map(|label| Running::start(compiled, &label.language, &label.name))
        .collect::<Result<_>>()?;
    // Beside this program, which is in target/release/examples.
    let own = std::env::current_exe()?;
    let folder = own.parent().and_then(Path::parent).context("no folder of programs")?;
    let mut leakctl = Command::new(folder.join("leakctl"));
    leakctl.args(["attach", "--no-daemon", "--json", "--for"]);
    leakctl.arg(format!("{}s", arguments.length.as_secs()));
    leakctl.args(running.iter().map(|one| one.pid().to_string()));
    leakctl.stderr(Stdio::null());
    let output = leakctl.output().context("leakctl")?;
    if let Some(folder) = &arguments.reports {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join(format!("{number}.json")), &output.stdout)?;
    }
    let document: Value = serde_json::from_slice(&output.stdout).context("leakctl's report")?;
    let targets = document["targets"].as_array().context("no targets")?;
    labels
        .iter()
        .zip(&running)
        .map(|(label, process)| {
            let pid = u64::from(process.pid());
            let target = targets.iter().find(|one| one["pid"].as_u64() == Some(pid));
            let target = target.with_context(|| format!("{}: not in the report", label.name))?;
            ensure!(target["ended"] == "running", "{} has ended", label.name);
            Ok(result(label.clone(), target))
        })
        .collect()
}

fn result(label: Label, target: &Value) -> Outcome {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let empty = Vec::new();
    let sites = target["sites"].as_array().unwrap_or(&empty);
    let told: Vec<&Value> = sites.iter().filter(|one| one["verdict"]["word"] == "leak").collect();
    let is_in = |site: &Value, function: &str| {
        let frames = site["stack"].as_array().into_iter().flatten();
        frames.filter_map(|frame| frame["function"].as_str()).any(|name| name.contains(function))
    };
    let place = match &label.function {
        Some(function) => told.iter().any(|site| is_in(site, function)),
        None => true,
    };
    let verdict = &target["verdict"];
    // Of a leak, the reasons at its site say more than the sum.
    let first = sites.first().map(|site| text(&site["verdict"]["evidence"]));
    Outcome {
        verdict: text(&verdict["word"]),
        confidence: verdict["confidence"].as_str().map(str::to_owned),
        evidence: first.unwrap_or_else(|| text(&verdict["evidence"])),
        label,
        place,
    }
}

impl Outcome {
    fn told(&self) -> bool {
        self.verdict == "leak"
    }

    fn is_right(&self) -> bool {
        self.told() == self.label.leaks && (self.place || !self.label.leaks)
    }

    fn line(&self) -> String {
        let Self { label, verdict, confidence, evidence, .. } = self;
        let confidence = confidence.as_deref().map(|word| format!(" ({word})"));
        let held = if label.held_out { " [held out]" } else { "" };
        format!(
            "{:6} {:32} {verdict}{}{held}\n       {}\n       {evidence}",
            label.language,
            label.name,
            confidence.unwrap_or_default(),
            label.about
        )
    }

    fn json(&self) -> Value {
        json!({
            "language": self.label.language,
            "name": self.label.name,
            "leaks": self.label.leaks,
            "held_out": self.label.held_out,
            "verdict": self.verdict,
            "confidence": self.confidence,
            "evidence": self.evidence,
            "right": self.is_right(),
        })
    }
}

/// The confusion matrix.
#[derive(Clone, Copy, Debug, Default)]
struct Matrix {
    leaks_told: usize,
    leaks_missed: usize,
    others_told: usize,
    others_left: usize,
}

impl Matrix {
    fn of<'a>(results: impl Iterator<Item = &'a Outcome>) -> Self {
        let mut matrix = Self::default();
        for result in results {
            let count = match (result.label.leaks, result.told() && result.place) {
                (true, true) => &mut matrix.leaks_told,
                (true, false) => &mut matrix.leaks_missed,
                (false, _) if result.told() => &mut matrix.others_told,
                (false, _) => &mut matrix.others_left,
            };
            *count += 1;
        }
        matrix
    }

    fn precision(self) -> f64 {
        self.leaks_told as f64 / (self.leaks_told + self.others_told).max(1) as f64
    }

    fn recall(self) -> f64 {
        self.leaks_told as f64 / (self.leaks_told + self.leaks_missed).max(1) as f64
    }

    fn json(self) -> Value {
        json!({
            "leaks_told": self.leaks_told,
            "leaks_missed": self.leaks_missed,
            "others_told": self.others_told,
            "others_left": self.others_left,
            "precision": self.precision(),
            "recall": self.recall(),
        })
    }

    fn print(self, title: &str) {
        println!("\n{title:24} told as a leak    not");
        println!("  {:22} {:14} {:6}", "leaks", self.leaks_told, self.leaks_missed);
        println!("  {:22} {:14} {:6}", "others", self.others_told, self.others_left);
        println!(
            "  precision {:.3} (goal {:.2}), recall {:.3} (goal {:.2})",
            self.precision(),
            GOAL.0,
            self.recall(),
            GOAL.1
        );
    }
}

fn report(results: &[Outcome], arguments: &Arguments) -> Result<()> {
    let (held, tuned): (Vec<&Outcome>, Vec<&Outcome>) =
        results.iter().partition(|one| one.label.held_out);
    let all = Matrix::of(results.iter());
    if arguments.json {
        let document = json!({
            "schema": "leakd.bench.verdicts/1",
            "watched_seconds": arguments.length.as_secs(),
            "all": all.json(),
            "held_out": Matrix::of(held.iter().copied()).json(),
            "programs": results.iter().map(Outcome::json).collect::<Vec<_>>(),
        });
        println!("{}", serde_json::to_string_pretty(&document)?);
        return Ok(());
    }
    for result in results {
        println!("{}", result.line());
    }
    if !held.is_empty() {
        Matrix::of(tuned.iter().copied()).print("while the judge was made");
        Matrix::of(held.iter().copied()).print("held out until then");
    }
    all.print("all");
    let wrong: Vec<&Outcome> = results.iter().filter(|one| !one.is_right()).collect();
    println!("\n{} of {} wrong", wrong.len(), results.len());
    for result in wrong {
        println!("{}", result.line());
    }
    Ok(())
}
