//! `leakctl top`

use std::io::IsTerminal;

use anyhow::bail;

use super::daemon_args::TopArguments;
use super::status;
use crate::client::ClientError;
use crate::top::{self, Daemon, Own};

/// Shows all processes, live.
pub async fn top(arguments: TopArguments) -> anyhow::Result<u8> {
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        bail!("top needs a terminal; `leakctl targets --json` is for scripts");
    }
    if std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb") {
        bail!("top needs a terminal that can place text, and TERM to name it");
    }
    if arguments.no_daemon {
        eprintln!("leakctl: starting; the canary goes ahead ...");
        top::run(Own::start().await?).await?;
        return Ok(status::CLEAN);
    }
    match Daemon::connect(&arguments.daemon.socket) {
        Ok(daemon) => top::run(daemon).await?,
        Err(error @ ClientError::NoDaemon(_)) => {
            bail!("{error}; without it: `sudo leakctl top --no-daemon`");
        }
        Err(error) => return Err(error.into()),
    }
    Ok(status::CLEAN)
}
