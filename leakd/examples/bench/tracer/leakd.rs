//! leakd, as users run it: `leakctl attach`.

use anyhow::{Context, Result};

use super::leakctl::Running;
use super::{Attached, Cost, LEAKD, Options, Told, Tracer, Way};

/// Mean bytes between two samples, in the variant that samples.
pub const SAMPLE_BYTES: u64 = 512 << 10;

/// leakd.
#[derive(Clone, Copy, Debug)]
pub struct Leakd {
    sample_bytes: u64,
}

impl Leakd {
    /// Every block is recorded.
    pub const fn full() -> Self {
        Self { sample_bytes: 0 }
    }

    /// One block for about [`SAMPLE_BYTES`] is recorded.
    pub const fn sampled() -> Self {
        Self { sample_bytes: SAMPLE_BYTES }
    }
}

impl Tracer for Leakd {
    fn name(&self) -> &'static str {
        if self.sample_bytes == 0 { LEAKD } else { "leakd sampled" }
    }

    fn about(&self) -> &'static str {
        if self.sample_bytes == 0 {
            "leakctl attach --no-daemon PID: every block, its whole stack"
        } else {
            "the same with --sample-bytes 524288"
        }
    }

    fn version(&self) -> Result<String, String> {
        Ok(format!("leakd {}", env!("CARGO_PKG_VERSION")))
    }

    fn way(&self) -> Way {
        Way::Attach
    }

    fn attach(&mut self, pid: u32, options: &Options) -> Result<Box<dyn Attached>> {
        Ok(Box::new(Running::start(pid, options, self.sample_bytes)?))
    }
}

impl Attached for Running {
    fn cost(&self) -> Cost {
        self.tool().cost()
    }

    fn end(self: Box<Self>) -> Result<Told> {
        let ended = Self::end(*self)?;
        let target = ended.report.targets.first().context("the report has no target")?;
        Ok(Told { lost: Some(target.coverage.lost_total()) })
    }
}
