//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Measures what tracing costs and what it finds: leakd, an empty program in its
/// place, and other tools, side by side on this machine.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
pub struct Arguments {
    /// What to measure [default: overhead, accuracy, scale, scan]
    #[command(subcommand)]
    pub command: Option<Command>,
    /// In under 3 minutes: malloc loops and nginx, under leakd, empty programs and
    /// memleak; and whether anything has grown since bench/baseline.json
    #[arg(long, global = true)]
    pub quick: bool,
    /// Write one JSON document instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// How often everything is measured, in turn
    #[arg(long, global = true, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: Option<u32>,
    /// Only workloads whose name contains this word; of micro, parts that begin so
    #[arg(long, global = true, value_name = "WORD")]
    pub only: Vec<String>,
    /// Only tracers whose name begins with this word; leakd is always there
    #[arg(long, global = true, value_name = "WORD")]
    pub tracer: Vec<String>,
    /// Where index.html and results.json go [default: target/bench]
    #[arg(long, global = true, value_name = "DIRECTORY")]
    pub output: Option<PathBuf>,
    /// Write the results into docs/BENCHMARKS.md, too
    #[arg(long, global = true)]
    pub write_docs: bool,
    /// Record bench/baseline.json anew, with --quick
    #[arg(long, global = true)]
    pub record: bool,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What tracing costs real programs
    Overhead,
    /// Whether a planted leak is found, and how its stack is told
    Accuracy,
    /// What up to 10,000,000 outstanding blocks cost
    Scale,
    /// How long it takes to find what nothing leads to any more
    Scan,
    /// Single figures: traps, pairs, programs, attach, blocks, tables, heal
    Micro,
    /// Measure nothing: put results together that --json wrote, the later ones
    /// over the earlier ones, and show them
    Render {
        /// Documents of runs on the same machine
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Check that options that are valid everywhere are, behind each command.
    #[test]
    fn options_hold_behind_commands() {
        Arguments::command().debug_assert();
        for command in ["overhead", "accuracy", "scale", "scan", "micro"] {
            let words = ["bench", command, "--only", "traps", "--rounds", "2", "--json"];
            let parsed = Arguments::try_parse_from(words).expect("valid");
            assert_eq!((parsed.only, parsed.rounds), (vec!["traps".to_owned()], Some(2)));
        }
    }
}
