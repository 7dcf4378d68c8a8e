//! What `leakctl kernel` takes.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::{Args, ValueEnum};
use leakd_common::kernel::{KERNEL_BLOCKS, KernelKind};

use super::args::OutputArguments;
use super::daemon_args::DaemonArguments;
use crate::duration;

/// What it is good for, by examples.
pub const HELP: &str = "\
What grows? Look first, it costs nothing:
  grep -E 'Slab|SUnreclaim|Percpu|VmallocUsed' /proc/meminfo
  slabtop -s c
Then watch only that, over more than one period of its load:
  leakctl kernel --cache dentry --for 5m --min-age 2m
  leakctl kernel --only pages,vmalloc
  leakctl kernel --min-bytes 4096 --json > report.json

A cache or a queue holds memory, too: what is a leak goes on growing, and few of
its blocks are ever freed (`survive`). `reclaimable` memory comes back when the
machine needs it.

Where leakd runs, the trace is leakd's, and kept within its budget: on a busy
machine, a second now and then. --no-daemon or --max-blocks has one of its own,
that sees everything, whatever it costs.";

/// A kind of memory, or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Only {
    /// kmalloc and slab caches
    Slab,
    /// kmalloc: by size
    Kmalloc,
    /// slab caches of their own
    Cache,
    /// whole pages, but for user memory and the page cache
    Pages,
    /// memory that each CPU has a copy of
    Percpu,
    /// areas of addresses: vmalloc, vmap, ioremap
    Vmalloc,
}

impl Only {
    fn kinds(self) -> &'static [KernelKind] {
        match self {
            Self::Slab => &[KernelKind::Kmalloc, KernelKind::Cache],
            Self::Kmalloc => &[KernelKind::Kmalloc],
            Self::Cache => &[KernelKind::Cache],
            Self::Pages => &[KernelKind::Pages],
            Self::Percpu => &[KernelKind::PerCpu],
            Self::Vmalloc => &[KernelKind::Vmalloc],
        }
    }
}

/// Arguments of `kernel`.
#[derive(Debug, Args)]
pub struct KernelArguments {
    /// Watch for so long, e.g. 30s, 5m, 1h.
    #[arg(
        long = "for",
        value_name = "TIME",
        default_value = "60s",
        value_parser = duration::parse
    )]
    pub length: Duration,
    /// Only this slab cache, as /proc/slabinfo calls it. `kmalloc-96` is every
    /// kmalloc of 96 bytes, whatever its flags.
    #[arg(long, value_name = "NAME", conflicts_with = "only")]
    pub cache: Option<String>,
    /// Only these kinds of memory; may be given more than once.
    #[arg(long, value_name = "KIND", value_enum, value_delimiter = ',')]
    pub only: Vec<Only>,
    /// Only blocks that take at least so many bytes.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub min_bytes: u64,
    /// Only blocks that take at most so many bytes.
    #[arg(long, value_name = "N")]
    pub max_bytes: Option<u64>,
    /// Blocks younger than this rank no call site: they may be in use.
    /// [default: a third of --for, 20s at most]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub min_age: Option<Duration>,
    /// Outstanding blocks to keep track of; their table takes 100 bytes of
    /// kernel memory each, from the start.
    #[arg(
        long,
        value_name = "N",
        default_value_t = KERNEL_BLOCKS,
        value_parser = clap::value_parser!(u32).range(1..=1 << 26)
    )]
    pub max_blocks: u32,
    /// Trace from here, even where a daemon runs.
    #[arg(long)]
    pub no_daemon: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub daemon: DaemonArguments,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputArguments,
}

impl KernelArguments {
    /// The kinds of memory.
    pub fn kinds(&self) -> BTreeSet<KernelKind> {
        if self.only.is_empty() {
            return KernelKind::ALL.into();
        }
        self.only.iter().flat_map(|only| only.kinds()).copied().collect()
    }

    /// The minimum age for a trace that took so long.
    pub fn min_age(&self, elapsed: Duration) -> Duration {
        let default = || Duration::from_secs(20).min(self.length.min(elapsed) / 3);
        self.min_age.unwrap_or_else(default)
    }
}
