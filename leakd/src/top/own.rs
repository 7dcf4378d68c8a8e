//! leakd's core in this process, for `--no-daemon`.

use anyhow::{Context, bail};

use super::source::Source;
use crate::config::{self, Mode};
use crate::daemon::{self, Handle};
use crate::preflight::Facts;
use crate::protocol::{Answer, Ask};

/// The core. It ends with the process, and its probes with it.
#[derive(Debug)]
pub struct Own {
    core: Handle,
    runtime: tokio::runtime::Handle,
}

impl Own {
    /// Starts it; the canary goes ahead. It traces what it is asked to, and
    /// nothing by itself. Budgets are those of the configuration.
    ///
    /// # Errors
    /// Without the rights that it takes, or with a wrong configuration.
    pub async fn start() -> anyhow::Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("--no-daemon needs root: run it with sudo");
        }
        Facts::gather().check()?;
        let mut loaded = config::load(config::DEFAULT_PATH.as_ref(), false)?;
        loaded.config.mode = Mode::Off;
        let core = daemon::start_inside(loaded).await.context("cannot start")?;
        Ok(Self { core, runtime: tokio::runtime::Handle::current() })
    }
}

impl Source for Own {
    fn ask(&mut self, ask: Ask) -> Result<Answer, String> {
        let answer = self.runtime.block_on(self.core.ask(ask));
        answer.ok_or_else(|| "leakd's core has ended: start again".to_owned())
    }
}
