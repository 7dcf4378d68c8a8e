//! How long stacks are incomplete after a library was loaded: until the walker
//! knows its mapping and its table, which has to be made.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use leakd::engine::Engine;
use leakd::engine::target::SeenFrom;
use leakd::symbol::CodeAddress;
use leakd_common::event::StackEnd;
use tempfile::TempDir;
use tokio::runtime::Handle;

use super::figure::{Figure, Goal};
use crate::child::{Ending, tie};

const PROGRAM: &str = include_str!("heal.c");
/// The library; some 3,000 functions, as large ones have, make its table.
const FUNCTIONS: u32 = 3000;
/// Until stacks are whole again, in ms.
const LIMIT: Goal = Goal::AtMost(50.0);
/// Libraries loaded in each round.
const LIBRARIES: u32 = 5;

fn compile(directory: &TempDir, name: &str, source: &str, flags: &[&str]) -> Result<()> {
    let path = directory.path().join(format!("{name}.c"));
    fs::write(&path, source)?;
    let output = directory.path().join(name);
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-fomit-frame-pointer"]).args(flags).arg("-o").arg(&output).arg(&path);
    let status = compiler.status().context("cc cannot be started")?;
    ensure!(status.success(), "cc could not compile {name}.c ({status})");
    Ok(())
}

fn library() -> String {
    let mut source = "#include <stdlib.h>\nvoid *volatile kept;\n".to_owned();
    for function in 0..FUNCTIONS {
        source += &format!(
            "__attribute__((noinline)) void f{function}(void) {{ \
             char *m = malloc({function} % 64 + 8); m[0] = 1; free(kept); kept = m; }}\n"
        );
    }
    source + "void work(void) { f7(); kept = kept; }\n"
}

/// Measures in `rounds` rounds.
pub fn run(engine: &mut Engine, rounds: u32) -> Result<Vec<Figure>> {
    let directory = TempDir::with_prefix("leakd-bench-")?;
    compile(&directory, "program", PROGRAM, &[])?;
    compile(&directory, "library.so", &library(), &["-shared", "-fPIC"])?;
    let mut healed = Vec::new();
    for round in 1..=rounds {
        eprint!("\rhealing: round {round} of {rounds} ");
        healed.extend(measure(engine, &directory, round)?);
    }
    eprintln!();
    let worst = healed.iter().copied().fold(0.0, f64::max);
    let missing = f64::from(rounds * LIBRARIES) - healed.len() as f64;
    Ok(vec![
        Figure::new("until stacks are whole", "ms", LIMIT, &healed),
        Figure::new("not within 250 ms", "", Goal::AtMost(0.0), &[missing]),
        Figure::new(format!("the worst of {}", healed.len()), "ms", LIMIT, &[worst]),
    ])
}

/// Has libraries loaded that nobody has seen before; gives what each took, in
/// ms.
fn measure(engine: &mut Engine, directory: &TempDir, round: u32) -> Result<Vec<f64>> {
    let names: Vec<String> = (0..LIBRARIES).map(|n| format!("copy-{round}-{n}.so")).collect();
    let paths: Vec<_> = names.iter().map(|name| directory.path().join(name)).collect();
    for path in &paths {
        fs::copy(directory.path().join("library.so"), path)?;
    }
    let mut command = Command::new(directory.path().join("program"));
    command.args(&paths).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = Ending(tie(&mut command).spawn()?);
    let mut input = child.0.stdin.take().context("a pipe")?;
    let mut lines = BufReader::new(child.0.stdout.take().context("a pipe")?).lines();
    ensure!(lines.next().transpose()?.as_deref() == Some("ready"), "the program is not ready");
    let slot = engine.attach(child.0.id(), SeenFrom::Attach)?;
    input.write_all(b"\n")?;
    let said = std::thread::spawn(move || -> Result<Vec<i64>> {
        let times = lines.take(LIBRARIES as usize);
        times.map(|line| Ok(line?.parse()?)).collect()
    });
    while !said.is_finished() {
        let next = async { tokio::time::timeout(Duration::from_millis(100), engine.next()).await };
        if let Ok(Some(announcement)) = Handle::current().block_on(next) {
            engine.handle(announcement);
        }
    }
    let begun = said.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    while let Some(announcement) = engine.try_next() {
        engine.handle(announcement);
    }
    let target = engine.target(slot).context("the target")?;
    let sites = engine.look(target, None)?.sites;
    let mut healed = Vec::new();
    for (path, begun) in paths.iter().zip(begun) {
        let is_in = |address: &CodeAddress| matches!(address, CodeAddress::File { object, .. } if object.path() == path);
        let whole = sites.keys().filter_map(|site| {
            let stack = target.stack(*site)?;
            let whole = stack.end == StackEnd::Bottom as u32 && stack.frame_pointer_steps == 0;
            (whole && target.code_addresses(*site).any(|address| is_in(&address)))
                .then_some(stack.time_ns)
        });
        if let Some(first) = whole.min() {
            healed.push((first as i64 - begun) as f64 / 1e6);
            continue;
        }
        // Of each call site only the first stack is known.
        eprintln!("\n{}: no whole stack;", path.display());
        for stack in sites.keys().filter_map(|site| target.stack(*site)) {
            let late = (stack.time_ns as i64 - begun) as f64 / 1e6;
            if (0.0..250.0).contains(&late) {
                let end = StackEnd::from_number(stack.end);
                eprintln!("  after {late:.1} ms {end:?}, {} frames", stack.frames.len());
            }
        }
    }
    engine.detach(slot);
    Ok(healed)
}
