//! What leakd takes on its command line.

use std::path::PathBuf;

use clap::Parser;

/// Watches every process of this machine, traces those that grow within a
/// budget, and names the lines that hold more and more memory.
#[derive(Debug, Parser)]
#[command(
    name = "leakd",
    version,
    about,
    after_help = "Ask it with leakctl. SIGHUP reads the configuration again; SIGTERM ends it.\n\
                  Needs root. Nothing is left behind, however it ends."
)]
pub struct Arguments {
    /// The configuration; drop-ins lie in leakd.d beside it
    /// [default: /etc/leakd/leakd.toml, if it is there].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the configuration in effect, each key with its meaning, and end.
    #[arg(long)]
    pub print_config: bool,
}
